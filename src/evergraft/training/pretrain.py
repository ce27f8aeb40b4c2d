"""`pretrain`: from a recipe to a finished run."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter
from transformers import TrainerCallback, set_seed
from transformers.integrations import TensorBoardCallback  # type: ignore[attr-defined]
from transformers.trainer_callback import PrinterCallback

from evergraft.bert.configuration import buildable_config
from evergraft.bert.examples import VALIDATION_SEED, PretrainingExamples
from evergraft.bert.ledger import Ledger, ledger
from evergraft.bert.model import SparseBertConfig, SparseBertForPreTraining, bert_config, create_model
from evergraft.bert.sizes import FAMILY, default_learning_rate
from evergraft.bert.tokenizer import save_tokenizer
from evergraft.corpus import Corpus
from evergraft.corpus.preparation import is_prepared
from evergraft.errors import EvergraftError
from evergraft.files.folders import atomic_folder, locked, write_manifest
from evergraft.kernels.allocator import keep_freed_memory
from evergraft.runs.checkpoint import step_of
from evergraft.runs.folder import MODEL, Run, find_resumable
from evergraft.runs.recipe import Recipe
from evergraft.sparse.conversion import sparse_layers
from evergraft.sparse.products import check_backend, choose_backend
from evergraft.training.budget import Budget
from evergraft.training.compilation import check_compiler, one_order_of_sums
from evergraft.training.inputs import check_model, corpus_identity, model_identity, open_corpus, reopen_corpus
from evergraft.training.progress import BudgetCallback, ProgressBar
from evergraft.training.trainer import (
    UNBOUNDED_STEPS,
    VALIDATION_KEYS,
    CheckpointedTopology,
    PretrainingTrainer,
    resolve_device,
    training_arguments,
)

Result = dict[str, Any]


class Interrupted(Exception):  # noqa: N818 - not an error: the run can go on
    """Training was stopped by a signal, after saving.

    Attributes:
        run: the folder to resume.
        signal_number: what stopped it.
    """

    def __init__(self, run: Path, signal_number: int) -> None:
        super().__init__(f"stopped and saved; continue with: evergraft pretrain --resume {run}")
        self.run = run
        self.signal_number = signal_number


def pretrain(recipe: Recipe, output: Path | None = None, *, callbacks: list[TrainerCallback] | None = None) -> Result:
    """Carry out a recipe in a new run folder.

    Args:
        recipe: what to do.
        output: the run's folder, new or empty; by default one in `runs/` that the recipe names.
        callbacks: more callbacks for the Trainer.

    Returns:
        The result, as in result.json (docs/reference/training.md).

    Raises:
        EvergraftError: bad input, or training diverged.
        Interrupted: a signal stopped training; everything is saved.
    """
    check_backend(recipe.backend)
    _check_machine(recipe)
    corpus = open_corpus(recipe)
    recipe = _resolve(recipe, corpus)
    _check(recipe, corpus)
    inputs = {
        "corpus": str(corpus.path.resolve()),
        "corpus_identity": corpus_identity(corpus),
        "model_identity": model_identity(recipe),
        "device": resolve_device(recipe.device),
    }
    run = Run.create(output or _new_folder(recipe), recipe, inputs)
    return _train(run, corpus, None, callbacks or [])


def resume(path: Path, *, callbacks: list[TrainerCallback] | None = None) -> Result:
    """Continue the run in a folder, or from one of its checkpoints, as if it had never stopped.

    It takes as many threads as the run began with, whose number decides the last bits of sums.

    Raises:
        EvergraftError: no run, a torn or foreign checkpoint, text that has changed since, another kind of device than
            the run began on, or another process that is at it.
        Interrupted: as `pretrain`.
    """
    run, checkpoint = find_resumable(path)
    if run.result is not None:
        return run.result
    _check_machine(run.recipe)
    _check_device(run)
    corpus = reopen_corpus(run)
    check_model(run)
    torch.set_num_threads(run.environment.get("threads", torch.get_num_threads()))
    return _train(run, corpus, checkpoint, callbacks or [])


def _train(run: Run, corpus: Corpus, checkpoint: Path | None, callbacks: list[TrainerCallback]) -> Result:
    try:
        with locked(run.folder):
            return _train_alone(run, corpus, checkpoint, callbacks)
    except OSError as error:
        raise EvergraftError(
            f"cannot read or write {error.filename or run.folder}: {error.strerror or error}; put that right, and go "
            f"on with: evergraft pretrain --resume {run.folder}"
        ) from None


def _train_alone(run: Run, corpus: Corpus, checkpoint: Path | None, callbacks: list[TrainerCallback]) -> Result:
    recipe = run.recipe
    keep_freed_memory()
    set_seed(recipe.seed)
    budget = Budget(recipe.total_steps, recipe.minutes * 60 if recipe.minutes else None)
    stop = BudgetCallback(budget)
    model = create_model(_config(recipe, corpus), recipe.seed)
    bar = ProgressBar(budget)
    trainer = _trainer(run, corpus, model, budget, [stop, bar, *callbacks], validate_first=checkpoint is None)
    resumes_exactly = recipe.compile and resolve_device(recipe.device) == "cpu"  # as eager runs on the CPU do
    with stop.catching_signals(), bar.shown(), one_order_of_sums() if resumes_exactly else nullcontext():
        if checkpoint is None:
            _clear(run)
        else:
            trainer.metrics.rewind(step_of(checkpoint))
            if not _validations(trainer):
                raise EvergraftError(
                    f"{trainer.metrics.path} is missing or torn: it lacks the validation before the first step, with "
                    "which the result is compared; start a new run"
                )
        trainer.train(str(checkpoint) if checkpoint else None)
        if stop.signal:
            raise Interrupted(run.folder, stop.signal)
    return _finish(run, corpus, trainer)


def _trainer(
    run: Run,
    corpus: Corpus,
    model: SparseBertForPreTraining,
    budget: Budget,
    callbacks: list[TrainerCallback],
    validate_first: bool,
) -> PretrainingTrainer:
    recipe = run.recipe
    device = resolve_device(recipe.device)
    arguments = training_arguments(
        output_dir=str(run.folder),
        report_to=[],
        max_steps=recipe.total_steps or UNBOUNDED_STEPS,
        per_device_train_batch_size=recipe.batch_size // recipe.accumulate,
        per_device_eval_batch_size=max(8, recipe.batch_size // recipe.accumulate),
        gradient_accumulation_steps=recipe.accumulate,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_gradient_norm,
        bf16=recipe.precision == "bf16",
        seed=recipe.seed,
        use_cpu=device == "cpu",
        compiled=recipe.compile,
        logging_steps=recipe.log_every,
        eval_strategy="steps" if recipe.evaluate_every else "no",
        eval_steps=recipe.evaluate_every,
        eval_on_start=validate_first,  # from within: Trainer compiles a model that it validates outside of training
        save_steps=recipe.save_every,
    )
    steps = recipe.total_steps or UNBOUNDED_STEPS
    length, seed = recipe.sequence_length, recipe.seed
    validation = PretrainingExamples(corpus, corpus.validation, length, VALIDATION_SEED)
    validation.length = min(validation.length, recipe.validation_sequences)
    trainer = PretrainingTrainer(
        model,
        arguments,
        run=run.identity,
        budget=budget,
        warmup=recipe.warmup,
        keep=recipe.keep,
        tokens_per_step=recipe.batch_size * length,
        flops_per_step=_ledger(recipe, corpus).flops_per_sequence * recipe.batch_size,
        topology=_topology(recipe, budget),
        train_dataset=PretrainingExamples(corpus, corpus.train, length, seed, steps * recipe.batch_size),
        eval_dataset=validation,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    writer = SummaryWriter(run.folder / "tensorboard")
    trainer.add_callback(TensorBoardCallback(writer))  # type: ignore[no-untyped-call]
    return trainer


def _topology(recipe: Recipe, budget: Budget) -> CheckpointedTopology | None:
    if recipe.density == 1:
        return None
    return CheckpointedTopology(
        recipe.updates_or_default,
        recipe.prune_ratio,
        recipe.prune_decay,
        recipe.prune_by,
        group_lasso=recipe.group_lasso,
        seed=recipe.seed,
        progress=lambda state: budget.progress(state.global_step),
    )


def _finish(run: Run, corpus: Corpus, trainer: PretrainingTrainer) -> Result:
    with atomic_folder(run.folder / MODEL) as folder:
        trainer.model.save_pretrained(folder)
        save_tokenizer(corpus.transformers_tokenizer(), folder, trainer.model.config.max_position_embeddings)
        write_manifest(folder, {"run": run.identity})
    recipe, steps = run.recipe, trainer.state.global_step
    cost = _ledger(recipe, corpus)
    validations = _validations(trainer)
    updater = trainer.topology.updater if trainer.topology else None
    result: Result = {
        "run": str(run.folder),
        "steps": steps,
        "tokens": steps * trainer.tokens_per_step,
        "seconds": round(trainer.budget.elapsed, 3),
        "flops_total": steps * trainer.flops_per_step,
        "flops_per_sequence": cost.flops_per_sequence,
        "flops_per_sequence_dense": (cost.dense or cost).flops_per_sequence,
        "bytes": cost.bytes,
        "bytes_dense": (cost.dense or cost).bytes,
        "density": _density(trainer.model),
        **{key: validations[-1][key] for key in VALIDATION_KEYS},
        **{f"untrained_{key}": validations[0][key] for key in VALIDATION_KEYS},
        "unigram_entropy": corpus.unigram_entropy,
        "explored": updater.explored if updater else None,
        "removed_new_ratio": updater.removed_new_ratio if updater else None,
    }
    run.finish(result)
    return result


def _validations(trainer: PretrainingTrainer) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that hold one, the first before any step."""
    return [line for line in trainer.metrics if "validation_mlm_loss" in line]


def _density(model: torch.nn.Module) -> float:
    try:
        layers = sparse_layers(model).values()
    except EvergraftError:
        return 1.0
    weights = sum(layer.in_features * layer.out_features for layer in layers)
    return sum(layer.values.numel() for layer in layers) / weights


def _config(recipe: Recipe, corpus: Corpus, make: Callable[..., SparseBertConfig] = bert_config) -> SparseBertConfig:
    return make(
        recipe.model,
        corpus.vocabulary_size,
        recipe.sequence_length,
        density=recipe.density,
        block=recipe.block,
        seed=recipe.seed,
        backend=recipe.backend,
        dropout=recipe.dropout,
        pad_token_id=corpus.special_ids.pad,
    )


def _resolve(recipe: Recipe, corpus: Corpus) -> Recipe:
    """Fill in what depends on other fields, so that recipe.yaml says all; the model's configuration is tried out."""
    config = _config(recipe, corpus, buildable_config)
    one_dropout = config.hidden_dropout_prob == config.attention_probs_dropout_prob  # a config.json may have two
    return recipe.model_copy(
        update={
            "model": recipe.model if recipe.model in FAMILY else str(Path(recipe.model).resolve()),
            "vocabulary_size": corpus.vocabulary_size if is_prepared(recipe.corpus) else recipe.vocabulary_size,
            "learning_rate": recipe.learning_rate or default_learning_rate(config, recipe.density),
            "dropout": config.hidden_dropout_prob if one_dropout else recipe.dropout,
            "updates": recipe.updates_or_default,
        }
    )


def _check_machine(recipe: Recipe) -> None:
    """Find out what this machine cannot do before a folder is made."""
    device = resolve_device(recipe.device)
    if recipe.compile:
        check_compiler(device)


def _check_device(run: Run) -> None:
    """A run goes on on the kind of device it began on, whose random state its checkpoints hold."""
    here = resolve_device(run.recipe.device)
    begun = run.environment.get("device", here)
    if begun != here:
        raise EvergraftError(
            f"{run.folder} was begun on {begun}, and would go on on {here}: resume it where {begun} is"
        )


def _check(recipe: Recipe, corpus: Corpus) -> None:
    """Find out what does not fit before a folder is made: blocks and layers, products, inputs and documents."""
    _ledger(recipe, corpus)
    if recipe.density < 1:
        device = resolve_device(recipe.device)
        dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
        values = torch.empty(1, *recipe.block, device=device, dtype=dtype)
        choose_backend(recipe.backend, values[0], values)
    train, _ = (
        PretrainingExamples(corpus, split, recipe.sequence_length) for split in (corpus.train, corpus.validation)
    )
    documents, tokens = train.pairs.left_out
    if documents:
        warnings.warn(
            f"{documents:,} of {len(corpus.train.documents) - 1:,} training documents, {tokens:,} tokens, are shorter "
            f"than an input of {recipe.sequence_length} and left out; a corpus prepared with --sequence-length "
            f"{recipe.sequence_length} joins them",
            stacklevel=3,
        )


def _ledger(recipe: Recipe, corpus: Corpus) -> Ledger:
    return ledger(_config(recipe, corpus), recipe.density, recipe.block, recipe.sequence_length)


def _new_folder(recipe: Recipe) -> Path:
    name = f"{Path(recipe.model).stem}-d{recipe.density:g}-{recipe.block[0]}x{recipe.block[1]}-s{recipe.seed}"
    candidates: Callable[[int], Path] = lambda n: Path("runs") / (name if n == 1 else f"{name}-{n}")  # noqa: E731
    return next(path for n in range(1, sys.maxsize) if not (path := candidates(n)).exists())


def _clear(run: Run) -> None:
    """A run that is begun again, having stopped before its first checkpoint, starts with empty logs."""
    for log in run.folder.glob("*.jsonl"):
        log.unlink()
