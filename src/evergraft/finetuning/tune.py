"""From a pre-trained run to a classifier and its metrics."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from transformers import (
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback

from evergraft.bert.tokenizer import save_tokenizer
from evergraft.errors import EvergraftError
from evergraft.evolution.callback import TopologyCallback
from evergraft.files.folders import atomic_folder
from evergraft.finetuning.labelled import SUFFIXES, Examples, examples_identity, load_task
from evergraft.finetuning.model import classifier
from evergraft.finetuning.result import EpochResult, FinetuneResult
from evergraft.finetuning.tasks import Task, measure
from evergraft.kernels.device import resolve_device
from evergraft.runs.environment import Environment
from evergraft.runs.folder import Run
from evergraft.runs.layout import ENVIRONMENT, FINETUNE, MODEL, RESULT
from evergraft.settings import SEEDS
from evergraft.training.budget import Budget
from evergraft.training.progress import ProgressBar

WARMUP = 0.1  # the share of the steps in which the rate rises, before it falls to 0 (Devlin et al., 2018, appendix A.3)


def finetune(
    run_folder: Path,
    task: str,
    *,
    data: Path | None = None,
    validation: Path | None = None,
    epochs: int = 3,
    learning_rate: float = 1e-4,
    batch_size: int = 32,
    seed: int = 0,
    dense: bool = False,
    updates: int = 0,
    device: str = "auto",
    output: Path | None = None,
) -> FinetuneResult:
    """Fine-tune a run's model on a task, and measure it.

    Inputs are cut to the run's sequence length.

    Args:
        run_folder: the folder of a finished run.
        task: a GLUE task, or the path of a table of labelled sentences (`load_task`).
        data: for a GLUE task, the folder with its tables.
        validation: for a table, another one to validate on; by default a tenth of its examples is held out.
        epochs: passes over the training examples.
        learning_rate: AdamW's peak, from the range that Turc et al. (2019, arXiv 1908.08962) searched for small BERTs.
        batch_size: examples in a step.
        seed: the seed of the classifier, the order of the examples, and dropout.
        dense: fill the encoder up to a dense one first; a dense run stays as it is.
        updates: topology updates while fine-tuning; 0 leaves the topology as it is.
        device: `auto`, `cpu` or `cuda`.
        output: a new folder; by default `finetune/TASK-sSEED` in the run's folder.

    Returns:
        What result.json in `output` holds. Beside it are the model and environment.json.

    Raises:
        EvergraftError: the run is not there or not finished, bad data, a setting out of range, updates of a dense
            encoder, `output` exists, or training diverged.

    Example:
        >>> result = finetune(Path("runs/tiny"), "mine.tsv", epochs=4, learning_rate=3e-4)
        >>> list(result.metrics)
        ['accuracy', 'macro_f1']
    """
    _check(epochs, learning_rate, batch_size, seed, updates)
    device = resolve_device(device)
    run = Run.open(run_folder)
    if updates and (dense or run.recipe.is_dense):
        raise EvergraftError(f"`updates` {updates}: a dense encoder has no topology to update; leave `updates` out")
    run.model_folder  # noqa: B018 - raises for an unfinished run, before anything is read
    chosen, train, dev = load_task(task, data, validation)
    output = output or run_folder / FINETUNE / _name(chosen, dense, updates, seed)
    if output.exists():
        raise EvergraftError(f"`output` {output} exists already; choose another `output`, or another `seed`")
    set_seed(seed)
    model = classifier(run, chosen, dense=dense)
    tokenizer = AutoTokenizer.from_pretrained(run.model_folder)
    encoded = [_encode(tokenizer, examples, run.recipe.sequence_length) for examples in (train, dev)]
    bar = ProgressBar(Budget(-(-len(train.labels) // batch_size) * epochs, None))
    with atomic_folder(output) as folder, bar.shown():
        trainer = Trainer(
            model,
            _arguments(folder, epochs, learning_rate, batch_size, seed, device),
            data_collator=DataCollatorWithPadding(tokenizer),
            train_dataset=encoded[0],
            eval_dataset=encoded[1],
            compute_metrics=lambda outputs: _metrics(chosen, outputs),
            callbacks=[*([TopologyCallback(updates=updates)] if updates else []), bar],
        )
        trainer.remove_callback(PrinterCallback)
        began = time.monotonic()
        trainer.train()
        history = _history(trainer)
        result = FinetuneResult(
            run=str(run_folder),
            task=chosen.name,
            data_identity=examples_identity(train, dev),
            output=str(output),
            metrics=history[-1].metrics,
            history=history,
            seconds=round(time.monotonic() - began, 3),
            steps=trainer.state.global_step,
            train_examples=len(train.labels),
            validation_examples=len(dev.labels),
            epochs=epochs,
            learning_rate=learning_rate,
            batch_size=batch_size,
            seed=seed,
            densified=dense and not run.recipe.is_dense,
            updates=updates,
            density=model.config.sparsity_config.density,
        )
        model.save_pretrained(folder / MODEL)
        save_tokenizer(tokenizer, folder / MODEL, model.config.max_position_embeddings)
        (folder / ENVIRONMENT).write_text(json.dumps(Environment.here().to_dict(), indent=1), encoding="utf-8")
        (folder / RESULT).write_text(json.dumps(result.to_dict(), indent=1), encoding="utf-8")
    return result


def _check(epochs: int, learning_rate: float, batch_size: int, seed: int, updates: int) -> None:
    for name, value in {"epochs": epochs, "batch_size": batch_size}.items():
        if value < 1:
            raise EvergraftError(f"`{name}` must be 1 or more; got {value}")
    if not 0 < learning_rate < 1:
        raise EvergraftError(f"`learning_rate` must lie between 0 and 1; got {learning_rate}")
    if not 0 <= seed < SEEDS:
        raise EvergraftError(f"`seed` must be 0 or more and below 2^32; got {seed}")
    if updates < 0:
        raise EvergraftError(f"`updates` must be 0 (the topology stays) or more; got {updates}")


def _name(task: Task, dense: bool, updates: int, seed: int) -> str:
    how = ["dense"] * dense + [f"updates{updates}"] * bool(updates)
    table = next((task.name.removesuffix(suffix) for suffix in SUFFIXES if task.name.endswith(suffix)), task.name)
    return "-".join([table, *how, f"s{seed}"])


def _encode(tokenizer: Any, examples: Examples, length: int) -> list[dict[str, Any]]:
    encoded = tokenizer(examples.first, examples.second, truncation=True, max_length=length)
    return [
        {"labels": label, **{name: encoded[name][index] for name in encoded}}
        for index, label in enumerate(examples.labels)
    ]


def _arguments(
    folder: Path, epochs: int, learning_rate: float, batch_size: int, seed: int, device: str
) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        learning_rate=learning_rate,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=4 * batch_size,
        warmup_steps=WARMUP,
        weight_decay=0.01,
        optim="adamw_torch_fused",
        eval_strategy="epoch",
        save_strategy="no",
        logging_steps=10,
        disable_tqdm=True,
        report_to=[],
        log_level="error",
        seed=seed,
        use_cpu=device == "cpu",
        dataloader_pin_memory=device != "cpu",
    )


def _metrics(task: Task, outputs: EvalPrediction) -> dict[str, float]:
    return measure(task, np.asarray(outputs.predictions), np.asarray(outputs.label_ids))  # type: ignore[return-value]


def _history(trainer: Trainer) -> list[EpochResult]:
    """Loss and metrics after each epoch.

    Raises:
        EvergraftError: a loss is not finite.
    """
    bookkeeping = ("eval_loss", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
    lines = [line for line in trainer.state.log_history if "eval_loss" in line]
    for line in lines:
        if not math.isfinite(line["eval_loss"]):
            raise EvergraftError(
                f"the validation loss is {line['eval_loss']} after epoch {round(line['epoch'])}: fine-tuning has "
                f"diverged; lower `learning_rate` ({trainer.args.learning_rate:g} now)"
            )
    return [
        EpochResult(
            epoch=round(line["epoch"]),
            loss=line["eval_loss"],
            metrics={
                name.removeprefix("eval_"): value
                for name, value in line.items()
                if name.startswith("eval_") and name not in bookkeeping
            },
        )
        for line in lines
    ]
