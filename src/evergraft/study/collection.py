"""Finished runs, gathered by configuration."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from evergraft.errors import EvergraftError
from evergraft.runs.recipe import Recipe
from evergraft.study.facts import CONDITIONS, MEASURED, labels
from evergraft.study.grid import load_study
from evergraft.study.record import RunRecord, read_run
from evergraft.study.statistics import Estimate, t_interval
from evergraft.study.status import check_unchanged, run_status
from evergraft.study.step_times import StepTimes

Number = Callable[[RunRecord], float]  # one number of a run, such as its loss or what it cost


@dataclass(frozen=True)
class Configuration:
    """Runs that differ in their seed alone.

    Attributes:
        label: what tells it from the other configurations of the report.
        records: its runs, by seed.
    """

    label: str
    records: tuple[RunRecord, ...]

    @property
    def first(self) -> RunRecord:
        """The run of its first seed, which stands for all in what no seed changes."""
        return self.records[0]

    @property
    def family(self) -> str:
        """The family of its runs."""
        return self.first.family

    @property
    def recipe(self) -> Recipe:
        """The recipe of its first seed."""
        return self.first.recipe

    @property
    def model(self) -> str:
        """The model's name, such as `tiny`; of a config.json the file's name without its ending."""
        return Path(self.recipe.model).stem

    @property
    def block(self) -> str:
        """The block shape, such as `16x16`; `dense` for a dense model."""
        return "dense" if self.dense else f"{self.recipe.block[0]}x{self.recipe.block[1]}"

    @property
    def dense(self) -> bool:
        """Whether all of its weights exist, whatever its family is called."""
        return self.recipe.is_dense

    @property
    def conditions(self) -> dict[str, Any]:
        """On what it was trained, for how long, and how it was measured.

        Losses of configurations under unlike conditions are not compared.
        """
        text = self.first.environment.corpus_identity[:8]  # a hash of its word pieces and its vocabulary
        others = {name: getattr(self.recipe, name) for name in CONDITIONS}
        return {"corpus": text, "steps": self.recipe.total_steps} | others

    @property
    def size(self) -> tuple[str, str | None]:
        """Equal for models of one size: the name, and the hash of a config.json."""
        return self.recipe.model, self.first.environment.model_identity

    def trained_like(self, other: Configuration) -> bool:
        """Whether both are models of one size that were trained and measured under the same conditions."""
        return self.size == other.size and self.conditions == other.conditions

    def pretrained_like(self, other: Configuration) -> bool:
        """Whether both are models of one size that were trained under the same conditions, measured alike or not.

        What they come to in fine-tuning may then be compared, for it is measured in one way.
        """
        unlike = {name for name, value in self.conditions.items() if other.conditions[name] != value}
        return self.size == other.size and unlike.issubset(MEASURED)

    def by_seed(self, number: Number) -> dict[int, float]:
        """One number of each of its runs, by seed."""
        return {record.recipe.seed: number(record) for record in self.records}

    def estimate(self, number: Number) -> Estimate:
        """The mean of a number over the seeds, with its interval."""
        return t_interval(list(self.by_seed(number).values()))

    @property
    def loss(self) -> Estimate:
        """The mean validation MLM loss over the seeds, nats."""
        return self.estimate(mlm_loss)

    @property
    def losses(self) -> dict[int, float]:
        """The validation MLM loss of each seed, nats."""
        return self.by_seed(mlm_loss)


def mlm_loss(record: RunRecord) -> float:
    """A run's validation MLM loss, nats."""
    return record.result.validation_mlm_loss


def best_of(configurations: Sequence[Configuration]) -> Configuration:
    """The configuration with the lowest mean loss, among those with the most seeds.

    Without the first condition the one lucky seed of a configuration would win over the mean of three.
    """
    return min(configurations, key=lambda one: (-len(one.losses), one.loss.mean))


@dataclass(frozen=True)
class Collection:
    """Everything one report is about.

    Attributes:
        title, question: those of the study, if it is one.
        configurations: in the order of the study, or of the folders named.
        unfinished: name and state of the runs that have not finished, with the reason of those that failed.
        command: what makes the runs again, if they are of a study.
        page: where its report lies by default.
        step_times: steps that were timed alone, if a file of them was named.
    """

    title: str
    question: str
    configurations: tuple[Configuration, ...]
    unfinished: tuple[tuple[str, str], ...] = ()
    command: str | None = None
    page: Path = Path("report.html")
    step_times: StepTimes | None = None

    @property
    def records(self) -> list[RunRecord]:
        """All runs."""
        return [record for configuration in self.configurations for record in configuration.records]

    def family(self, name: str) -> list[Configuration]:
        """The configurations of one family."""
        return [configuration for configuration in self.configurations if configuration.family == name]


def collect(targets: Sequence[Path]) -> Collection:
    """Gather the finished runs of one study file, or of run folders.

    Args:
        targets: one study file (.yaml or .yml), or any number of run folders.

    Raises:
        EvergraftError: a study file among other targets, a folder that holds no run, an unfinished or a torn one, the
            same run twice, two of one recipe and seed, or nothing finished at all.

    Example:
        >>> [one.label for one in collect([Path("studies/blocks.yaml")]).configurations]
        ['dense', 'static 1x1', 'dynamic 1x1']
    """
    studies = [target for target in targets if target.suffix in (".yaml", ".yml")]
    if studies and len(targets) > 1:
        raise EvergraftError(f"report on one study at a time, or on run folders; got {len(targets)} with {studies[0]}")
    collection = _study_collection(studies[0]) if studies else _runs_collection(targets)
    if not collection.configurations:
        raise EvergraftError(f"{targets[0]}: no run has finished yet; run it with: evergraft study run {targets[0]}")
    return collection


def gather(records: Sequence[RunRecord]) -> tuple[Configuration, ...]:
    """Runs by configuration, each configuration under a label of its own.

    Raises:
        EvergraftError: two runs have one recipe and seed.
    """
    groups: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for record in records:
        groups[record.family, record.setting].append(record)
    grouped = [tuple(sorted(group, key=lambda record: record.recipe.seed)) for group in groups.values()]
    for one, other in (pair for group in grouped for pair in pairwise(group)):
        if one.recipe.seed == other.recipe.seed:
            raise EvergraftError(
                f"{one.folder} and {other.folder} are runs of one recipe and seed; report on one of them at a time"
            )
    first = [group[0] for group in grouped]
    named = labels([record.family for record in first], [record.facts for record in first])
    return tuple(Configuration(label, group) for label, group in zip(named, grouped, strict=True))


def _study_collection(path: Path) -> Collection:
    study = load_study(path)
    check_unchanged(study)
    statuses = [run_status(run) for run in study.runs]
    records = [
        read_run(status.run.folder, status.run.name, status.run.family)
        for status in statuses
        if status.state == "finished"
    ]
    unfinished = tuple(
        (status.run.name, f"failed: {status.reason}" if status.state == "failed" else status.state)
        for status in statuses
        if status.state != "finished"
    )
    command = f"evergraft study run {path}"
    page = study.output / f"{path.stem}.html"
    return Collection(study.title, study.question, gather(records), unfinished, command, page)


def _runs_collection(folders: Sequence[Path]) -> Collection:
    resolved = [folder.resolve() for folder in folders]
    for folder in folders:
        if resolved.count(folder.resolve()) > 1:
            raise EvergraftError(f"{folder} is named twice; name each run once")
    records = [read_run(folder) for folder in folders]
    title = records[0].name if len(records) == 1 else f"{len(records)} runs"
    return Collection(title, "", gather(records))
