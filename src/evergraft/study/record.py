"""A finished run, read from its folder."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, TypeVar

from evergraft.errors import EvergraftError
from evergraft.files.jsonlines import JsonLines
from evergraft.finetuning.result import FinetuneResult, read_finetune_result
from evergraft.runs.environment import RunEnvironment
from evergraft.runs.folder import Run
from evergraft.runs.layout import FINETUNE, METRICS, RESULT, TOPOLOGY
from evergraft.runs.recipe import Recipe
from evergraft.runs.result import RunResult
from evergraft.study.facts import IDENTITIES, SEED
from evergraft.study.grid import family_of
from evergraft.study.scores import Score


class LoggedSteps(NamedTuple):
    """A line of metrics.jsonl about training.

    Attributes:
        step: the optimiser step that it was written after.
        flops: training FLOPs of the encoder so far.
        seconds: how long training has taken so far.
        mlm_loss: the mean over the steps since the line before, nats.
    """

    step: int
    flops: float
    seconds: float
    mlm_loss: float


class LoggedUpdate(NamedTuple):
    """A line of topology.jsonl.

    Attributes:
        step: the optimiser step that the update followed.
        layer: the layer's name, or `all`.
        explored: share of the weights that were ever active.
        removed_new_ratio: share of the blocks grown by the update before that this one pruned; None for the first.
        empty_rows, unread_columns: shares of the outputs that have no input and of the inputs that no output reads,
            after the update; None in logs of version 0.1.0.
    """

    step: int
    layer: str
    explored: float
    removed_new_ratio: float | None
    empty_rows: float | None = None
    unread_columns: float | None = None


Line = TypeVar("Line", LoggedSteps, LoggedUpdate)


@dataclass(frozen=True)
class RunRecord:
    """A finished run.

    Attributes:
        name: the name in a study's plan; otherwise the folder's name.
        family: the family in a study's plan; otherwise `dense`, `static` or `dynamic`.
        folder: the run's folder.
        recipe: the run's recipe, fully resolved.
        result: what result.json holds.
        environment: what environment.json holds.
    """

    name: str
    family: str
    folder: Path
    recipe: Recipe
    result: RunResult
    environment: RunEnvironment

    @cached_property
    def facts(self) -> dict[str, Any]:
        """All that decides the run: the fields that its recipe goes by, and hashes of its text and its config.json."""
        return self._facts_of(self.recipe)

    @property
    def setting(self) -> str:
        """The facts but the seed, as text: equal for runs that are repeats of each other."""
        return self.setting_with()

    @property
    def static_setting(self) -> str:
        """The setting that this run would have if its topology did not evolve."""
        return _text(self._facts_of(self.recipe.model_copy(update={"updates": 0})))

    def setting_with(self, **same: Any) -> str:
        """The setting with other values for the fields given: equal for runs that differ in these fields alone."""
        return _text(self.facts | same)

    @cached_property
    def logged_steps(self) -> list[LoggedSteps]:
        """What metrics.jsonl says of training.

        Raises:
            EvergraftError: a line lacks what it should hold.
        """
        return _lines(self.folder / METRICS, LoggedSteps, "seconds")

    @cached_property
    def logged_updates(self) -> list[LoggedUpdate]:
        """What topology.jsonl says of each update; empty for a run that never updated.

        Raises:
            EvergraftError: a line lacks what it should hold.
        """
        return _lines(self.folder / TOPOLOGY, LoggedUpdate, "step")

    @cached_property
    def steady_seconds(self) -> float:
        """What training would take if every step were as fast as the median log window, in seconds.

        Unlike the result's `seconds` it holds no pause, and no other job that the machine had for a while.
        """
        windows = [(later.step - one.step, later.seconds - one.seconds) for one, later in pairwise(self.logged_steps)]
        paces = [seconds / steps for steps, seconds in windows if steps > 0]
        return median(paces) * self.result.steps if paces else self.result.seconds

    @cached_property
    def finetuned(self) -> list[FinetuneResult]:
        """The results of `evergraft finetune` in the run's folder.

        Raises:
            EvergraftError: one is torn.
        """
        return [read_finetune_result(path) for path in sorted((self.folder / FINETUNE).glob(f"*/{RESULT}"))]

    @cached_property
    def scores(self) -> dict[Score, list[float]]:
        """The metrics of its fine-tunings; an empty list for a metric that was undefined in all of them."""
        scores: dict[Score, list[float]] = defaultdict(list)
        for result in self.finetuned:
            for metric, value in result.metrics.items():
                scores[Score.of(result, metric)] += [] if value is None else [value]
        return scores

    def _facts_of(self, recipe: Recipe) -> dict[str, Any]:
        read = {name: getattr(self.environment, name) for name in IDENTITIES}
        return recipe.effective.model_dump(mode="json") | read


def read_run(folder: Path, name: str | None = None, family: str | None = None) -> RunRecord:
    """Read a finished run.

    Args:
        folder: the run's folder.
        name: what to call it; by default the folder's name.
        family: by default `dense`, `static` or `dynamic`, by its recipe.

    Raises:
        EvergraftError: the folder holds no run, the run has not finished, or a file of it is torn.
    """
    run = Run.open(folder)
    result, environment = run.result, run.environment
    if result is None:
        raise EvergraftError(f"{folder} holds an unfinished run; finish it with: evergraft pretrain --resume {folder}")
    return RunRecord(name or folder.name, family or family_of(run.recipe), folder, run.recipe, result, environment)


def _text(facts: dict[str, Any]) -> str:
    return repr(facts | {SEED: 0})


def _lines(path: Path, kind: type[Line], where: str) -> list[Line]:
    """The lines of a log that hold the key `where`, each of which must then hold all of `kind` that has no default."""
    lines = []
    for number, entry in enumerate(JsonLines(path), 1):
        if where not in entry:
            continue
        if lacking := sorted(set(kind._fields) - kind._field_defaults.keys() - entry.keys()):
            raise EvergraftError(f"{path} is torn: line {number} lacks {', '.join(lacking)}; remove that line")
        lines.append(kind(**{name: entry[name] for name in kind._fields if name in entry}))
    return lines
