"""`pretrain` and `resume`: from a recipe, or from a run that was stopped, to a finished run."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from transformers import TrainerCallback, set_seed

from evergraft.bert.model import create_model
from evergraft.errors import EvergraftError
from evergraft.files.folders import locked
from evergraft.kernels.allocator import keep_freed_memory
from evergraft.kernels.device import Device
from evergraft.runs.checkpoint import step_of
from evergraft.runs.environment import RunEnvironment
from evergraft.runs.folder import Run, find_resumable
from evergraft.runs.layout import METRICS, RUNS, TOPOLOGY
from evergraft.runs.recipe import Recipe
from evergraft.runs.result import RunResult
from evergraft.training.budget import Budget
from evergraft.training.compilation import one_order_of_sums
from evergraft.training.finish import finish
from evergraft.training.inputs import check_model, corpus_identity, model_identity, open_corpus, reopen_corpus
from evergraft.training.plan import Plan, make_plan, usable_device
from evergraft.training.progress import BudgetCallback, ProgressBar
from evergraft.training.trainer import PretrainingTrainer
from evergraft.training.validation import validations


class Interrupted(Exception):  # noqa: N818 - not an error: the run can go on
    """A signal stopped training, after everything was saved.

    Attributes:
        run: the run's folder, to be given to `resume`.
        signal_number: the signal that stopped training, such as 2 for Ctrl-C.

    Example:
        >>> try:
        ...     evergraft.pretrain(recipe)
        ... except evergraft.Interrupted as stopped:
        ...     evergraft.resume(stopped.run)
    """

    def __init__(self, run: Path, signal_number: int) -> None:
        super().__init__(f"stopped and saved; continue with: evergraft pretrain --resume {run}")
        self.run = run
        self.signal_number = signal_number


def pretrain(recipe: Recipe, output: Path | None = None, *, callbacks: Sequence[TrainerCallback] = ()) -> RunResult:
    """Carry out a recipe in a new run folder.

    Args:
        recipe: what to do.
        output: the run's folder, new or empty; by default a new one in `runs/`, named after the recipe.
        callbacks: further callbacks for transformers' `Trainer`.

    Returns:
        What the run came to, as in the result.json of its folder.

    Raises:
        EvergraftError: the recipe does not fit the corpus or this machine, `output` is in use, a file cannot be read
            or written, or training diverged.
        Interrupted: a signal stopped training; everything is saved.

    Example:
        >>> result = pretrain(Recipe(model="tiny", corpus="text.txt", density=0.1, steps=1000), Path("runs/first"))
        >>> result.steps, result.validation_mlm_loss < result.unigram_entropy
        (1000, True)
    """
    device = usable_device(recipe)
    plan = make_plan(recipe, open_corpus(recipe), device)
    if plan.recipe.total_steps:  # not in resume: runs of version 0.1.0 may hold more updates than fit
        plan.recipe.evolution.check_fits(plan.recipe.total_steps)
    _tell_what_is_left_out(plan)
    run = Run.create(output or _new_folder(plan.recipe), plan.recipe, _environment(plan))
    return _train(run, plan, None, callbacks)


def resume(path: Path, *, callbacks: Sequence[TrainerCallback] = ()) -> RunResult:
    """Continue a run that was stopped, as if it had never stopped.

    The run takes as many CPU threads as it began with, since their number decides the last bits of sums.

    Args:
        path: the run's folder, to go on from its newest checkpoint, or the folder of one of its checkpoints.
        callbacks: further callbacks for transformers' `Trainer`.

    Returns:
        What the run came to; of a run that has finished already, at once.

    Raises:
        EvergraftError: there is no run, its checkpoint is torn or another run's, its text or its model's config.json
            has changed, this machine is of another kind than the run began on, or another process is training it.
        Interrupted: a signal stopped training; everything is saved.

    Example:
        >>> resume(Path("runs/first")).steps
        1000
    """
    run, checkpoint = find_resumable(path)
    if run.result is not None:
        return run.result
    device = usable_device(run.recipe)
    _check_device(run, device)
    corpus = reopen_corpus(run)
    check_model(run)
    torch.set_num_threads(run.environment.threads)
    return _train(run, make_plan(run.recipe, corpus, device), checkpoint, callbacks)


def _train(run: Run, plan: Plan, checkpoint: Path | None, callbacks: Sequence[TrainerCallback]) -> RunResult:
    with _alone(run):
        keep_freed_memory()
        set_seed(plan.recipe.seed)
        budget = Budget(plan.recipe.total_steps, plan.recipe.minutes * 60 if plan.recipe.minutes else None)
        stop, bar = BudgetCallback(budget), ProgressBar(budget)
        model = create_model(plan.config, plan.recipe.seed)
        trainer = PretrainingTrainer(
            model, plan, run, budget, [stop, bar, *callbacks], validate_first=checkpoint is None
        )
        with stop.catching_signals(), bar.shown(), _exact_compilation(plan):
            _rewind(trainer, checkpoint)
            trainer.train(str(checkpoint) if checkpoint else None)
            if stop.signal:
                raise Interrupted(run.folder, stop.signal)
        return finish(trainer)


@contextmanager
def _alone(run: Run) -> Iterator[None]:
    """Keep other processes out of the run; what cannot be read or written is told in one sentence."""
    try:
        with locked(run.folder):
            yield
    except OSError as error:
        raise EvergraftError(
            f"cannot read or write {error.filename or run.folder}: {error.strerror or error}; put that right, and go "
            f"on with: evergraft pretrain --resume {run.folder}"
        ) from None


def _exact_compilation(plan: Plan) -> AbstractContextManager[None]:
    """A compiled run on the CPU adds up in one order, so that it resumes exactly, as eager runs do by themselves."""
    return one_order_of_sums() if plan.recipe.compile and plan.device == "cpu" else nullcontext()


def _rewind(trainer: PretrainingTrainer, checkpoint: Path | None) -> None:
    """Put the logs back to where the checkpoint was; without one, empty them."""
    if checkpoint is None:
        for name in (METRICS, TOPOLOGY):
            (trainer.run.folder / name).unlink(missing_ok=True)
        return
    trainer.metrics.rewind(step_of(checkpoint))
    if not validations(trainer.metrics):
        raise EvergraftError(
            f"{trainer.metrics.path} is missing or torn: it lacks the validation before the first step, with which the "
            "result is compared; start a new run"
        )


def _environment(plan: Plan) -> RunEnvironment:
    return RunEnvironment.here(
        corpus=str(plan.corpus.path.resolve()),
        corpus_identity=corpus_identity(plan.corpus),
        model_identity=model_identity(plan.recipe),
        device=plan.device,
    )


def _check_device(run: Run, device: Device) -> None:
    """A run goes on on the kind of device that it began on, whose random state its checkpoints hold."""
    begun = run.environment.device or device
    if begun != device:
        raise EvergraftError(
            f"{run.folder} was begun on {begun}, and would go on on {device}: resume it where {begun} is"
        )


def _tell_what_is_left_out(plan: Plan) -> None:
    documents, tokens = plan.training.pairs.left_out
    if documents:
        length = plan.recipe.sequence_length
        warnings.warn(
            f"{documents:,} of {len(plan.corpus.train.documents) - 1:,} training documents, {tokens:,} tokens, are "
            f"shorter than an input of {length} and left out; a corpus that is prepared with a `sequence_length` of "
            f"{length} joins them",
            stacklevel=3,
        )


def _new_folder(recipe: Recipe) -> Path:
    name = f"{Path(recipe.model).stem}-d{recipe.density:g}-{recipe.block[0]}x{recipe.block[1]}-s{recipe.seed}"
    names = (name if number == 1 else f"{name}-{number}" for number in range(1, sys.maxsize))
    return next(path for name in names if not (path := Path(RUNS) / name).exists())
