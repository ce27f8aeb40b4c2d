"""What runs came to, read from their folders and gathered by configuration."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from evergraft.errors import EvergraftError
from evergraft.files.folders import read_object
from evergraft.files.jsonlines import JsonLines
from evergraft.runs.folder import ENVIRONMENT, Run
from evergraft.runs.recipe import Recipe
from evergraft.study.grid import family_of, load_study
from evergraft.study.statistics import Estimate, t_interval
from evergraft.study.status import LOSS, METRICS_FILE, check_unchanged, run_status

TOPOLOGY_FILE, FINETUNE_FOLDER = "topology.jsonl", "finetune"
IDENTITIES = ("corpus_identity", "model_identity")  # of an environment: hashes of what a run read from elsewhere
FIRST = ("model", "density", "block", "seed")  # what labels tell before OTHERS, or not at all
OTHERS = (*(name for name in Recipe.model_fields if name not in FIRST), *IDENTITIES)
MEASURED = ("precision", "validation_sequences")  # bear on a validation loss; fine-tuned scores are taken in fp32
CONDITIONS = ("sequence_length", "batch_size", "minutes", *MEASURED)
WORKLOAD = ("corpus_identity", "steps", "tokens", *CONDITIONS)  # the facts that `Configuration.conditions` are made of
ENVIRONMENT_KEYS = {"command", "platform", "python", "processor", "cpu_capability", "threads", "gpu", "versions"}


class Score(NamedTuple):
    """What a fine-tuning is measured by, and how it was done: those alike in all of this are repeats of each other."""

    task: str
    metric: str
    densified: bool
    updates: int
    epochs: int
    batch_size: int
    learning_rate: float
    data_identity: str = ""  # of results before it was recorded

    @property
    def of_dense(self) -> Score:
        """What a dense model's score may be compared by: it has no topology, and a best rate of its own."""
        return self._replace(densified=False, updates=0, learning_rate=0.0)


SETTINGS = tuple(name for name in Score._fields if name not in ("metric", "data_identity"))  # each result has them


@dataclass(frozen=True)
class RunRecord:
    """A finished run.

    Attributes:
        name, family: of a study's plan; otherwise the folder's name, and `dense`, `static` or `dynamic`.
        folder: where it is.
        recipe: fully resolved.
        result: result.json (docs/reference/training.md).
        environment: environment.json.
    """

    name: str
    family: str
    folder: Path
    recipe: Recipe
    result: dict[str, Any]
    environment: dict[str, Any]

    @cached_property
    def facts(self) -> dict[str, Any]:
        """All that decides it: the fields of its recipe that it goes by, and the hashes of its text and config.json."""
        read = {name: self.environment.get(name) for name in IDENTITIES}
        return self.recipe.effective.model_dump(mode="json") | read

    def setting(self, **same: Any) -> str:
        """Its facts as text, the seed and the fields given made the same: equal for runs that differ in these alone."""
        return repr(self.facts | {"seed": 0} | same)

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl.

        Raises:
            EvergraftError: a line lacks what it should hold.
        """
        return _lines(self.folder / METRICS_FILE, {"flops", "seconds", "mlm_loss"}, "seconds")

    @cached_property
    def figures(self) -> dict[str, Any]:
        """The result, `steady_seconds` and `bytes_total`.

        The seconds are what training takes where every step is as fast as the median log window: unlike `seconds`, they
        hold no pause, and no other job that the machine had for a while. The bytes are the sum of the result's.
        """
        marks = [(line["step"], line["seconds"]) for line in self.metrics if "seconds" in line]
        windows = [(later[0] - earlier[0], later[1] - earlier[1]) for earlier, later in pairwise(marks)]
        paces = [seconds / steps for steps, seconds in windows if steps > 0]
        steady = median(paces) * self.result["steps"] if paces else self.result["seconds"]
        return self.result | {"steady_seconds": steady, "bytes_total": sum(self.result["bytes"].values())}

    @cached_property
    def topology(self) -> list[dict[str, Any]]:
        """The lines of topology.jsonl; none for a run that never updated.

        Raises:
            EvergraftError: a line lacks what it should hold.
        """
        return _lines(self.folder / TOPOLOGY_FILE, {"layer", "explored", "removed_new_ratio"}, "step")

    @cached_property
    def finetuned(self) -> list[dict[str, Any]]:
        """The results of `evergraft finetune` in this run's folder.

        Raises:
            EvergraftError: one is torn.
        """
        found = sorted((self.folder / FINETUNE_FOLDER).glob("*/result.json"))
        keys = {"metrics", *SETTINGS}
        return [read_object(path, keys, f"remove {path.parent} and fine-tune again") for path in found]

    @cached_property
    def scores(self) -> dict[Score, list[float]]:
        """What its fine-tunings came to; an empty list for a metric that was undefined in all of them."""
        scores: dict[Score, list[float]] = defaultdict(list)
        for result in self.finetuned:
            settings = {name: result[name] for name in SETTINGS} | {"data_identity": result.get("data_identity", "")}
            for metric, value in result["metrics"].items():
                scores[Score(metric=metric, **settings)] += [] if value is None else [value]
        return scores


@dataclass(frozen=True)
class Configuration:
    """Runs that differ in their seed alone.

    Attributes:
        label: what tells it from the other configurations of the report.
        records: by seed.
    """

    label: str
    records: tuple[RunRecord, ...]

    @property
    def family(self) -> str:
        """The family of its runs."""
        return self.records[0].family

    @property
    def recipe(self) -> Recipe:
        """The recipe of its first seed."""
        return self.records[0].recipe

    @property
    def model(self) -> str:
        """`tiny`; of a config.json the file's name without its ending."""
        return Path(self.recipe.model).stem

    @property
    def block(self) -> str:
        """`16x16`; `dense` for a dense model."""
        return "dense" if self.dense else f"{self.recipe.block[0]}x{self.recipe.block[1]}"

    @property
    def dense(self) -> bool:
        """Whether all of its weights exist, whatever its family is called."""
        return self.recipe.density == 1

    @property
    def conditions(self) -> dict[str, Any]:
        """On what it was trained, for how long, and how it was measured: losses under others are not compared."""
        text = str(self.records[0].environment["corpus_identity"])[:8]  # a hash of its word pieces and its vocabulary
        steps = self.recipe.total_steps
        return {"corpus": text, "steps": steps, **{name: getattr(self.recipe, name) for name in CONDITIONS}}

    @property
    def size(self) -> tuple[str, str | None]:
        """Equal for models of one size: the name, and the hash of a config.json."""
        return self.recipe.model, self.records[0].environment.get("model_identity")

    def trained_like(self, other: Configuration) -> bool:
        """Whether both are models of one size, trained under the same conditions."""
        return self.size == other.size and self.conditions == other.conditions

    def pretrained_like(self, other: Configuration) -> bool:
        """The same but for how their losses were measured: what they come to in fine-tuning is compared."""
        unlike = {name for name, value in self.conditions.items() if other.conditions[name] != value}
        return self.size == other.size and unlike.issubset(MEASURED)

    def setting(self, **same: Any) -> str:
        """Its runs' (`RunRecord.setting`)."""
        return self.records[0].setting(**same)

    def by_seed(self, key: str | Callable[[RunRecord], float]) -> dict[int, float]:
        """One figure of each seed: a key of `RunRecord.figures`, or a function of the record."""
        value = key if callable(key) else lambda record: record.figures[key]
        return {record.recipe.seed: value(record) for record in self.records}

    def estimate(self, key: str | Callable[[RunRecord], float]) -> Estimate:
        """The mean of a figure over seeds, with its interval."""
        return t_interval(list(self.by_seed(key).values()))

    @property
    def loss(self) -> Estimate:
        """Validation MLM loss, nats."""
        return self.estimate(LOSS)

    @property
    def losses(self) -> dict[int, float]:
        """The same of each seed."""
        return self.by_seed(LOSS)


def best_of(configurations: Sequence[Configuration]) -> Configuration:
    """Of those with the most seeds the one with the lowest loss in the mean: a lucky seed is not the best of three."""
    return min(configurations, key=lambda one: (-len(one.losses), one.loss.mean))


@dataclass(frozen=True)
class Collection:
    """Everything one report is about.

    Attributes:
        title, question: of the study, if it is one.
        configurations: in the order of the study, or of the folders named.
        unfinished: name and state of the runs that have not finished, with the reason of those that failed.
        command: what makes the runs again, if they are of a study.
        page: where its report lies by default.
    """

    title: str
    question: str
    configurations: tuple[Configuration, ...]
    unfinished: tuple[tuple[str, str], ...] = ()
    command: str | None = None
    page: Path = Path("report.html")

    @property
    def records(self) -> list[RunRecord]:
        """All runs."""
        return [record for configuration in self.configurations for record in configuration.records]

    def family(self, name: str) -> list[Configuration]:
        """The configurations of one family."""
        return [configuration for configuration in self.configurations if configuration.family == name]


def collect(targets: Sequence[Path]) -> Collection:
    """Gather the finished runs of one study file, or of run folders.

    Raises:
        EvergraftError: a study file among other targets, a folder that holds no run, an unfinished or a torn one, the
            same run twice, two of one recipe and seed, or nothing finished at all.
    """
    studies = [target for target in targets if target.suffix in (".yaml", ".yml")]
    if studies and len(targets) > 1:
        raise EvergraftError(f"report on one study at a time, or on run folders; got {len(targets)} with {studies[0]}")
    collection = _study_collection(studies[0]) if studies else _runs_collection(targets)
    if not collection.configurations:
        raise EvergraftError(f"{targets[0]}: no run has finished yet; run it with: evergraft study run {targets[0]}")
    return collection


def read_run(folder: Path, name: str | None = None, family: str | None = None) -> RunRecord:
    """Read a finished run.

    Raises:
        EvergraftError: the folder holds no run, the run has not finished, or a file of it is torn.
    """
    run = Run.open(folder)
    result, environment = run.result, run.environment
    if result is None:
        raise EvergraftError(f"{folder} holds an unfinished run; finish it with: evergraft pretrain --resume {folder}")
    if lacking := sorted(ENVIRONMENT_KEYS - environment.keys()):
        raise EvergraftError(f"{folder / ENVIRONMENT} is torn: it lacks {', '.join(lacking)}; leave that run out")
    recipe = run.recipe
    return RunRecord(name or folder.name, family or family_of(recipe), folder, recipe, result, environment)


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
    return Collection(
        study.title, study.question, _configurations(records), unfinished, command, study.output / f"{path.stem}.html"
    )


def _runs_collection(folders: Sequence[Path]) -> Collection:
    resolved = [folder.resolve() for folder in folders]
    for folder in folders:
        if resolved.count(folder.resolve()) > 1:
            raise EvergraftError(f"{folder} is named twice; name each run once")
    records = [read_run(folder) for folder in folders]
    title = records[0].name if len(records) == 1 else f"{len(records)} runs"
    return Collection(title, "", _configurations(records))


def _lines(path: Path, keys: Set[str], where: str) -> list[dict[str, Any]]:
    """The entries of a log, each of which holds these keys if it holds the one named by `where`."""
    entries = list(JsonLines(path))
    for number, entry in enumerate(entries, 1):
        if where in entry and not entry.keys() >= keys:
            lacking = ", ".join(sorted(keys - entry.keys()))
            raise EvergraftError(f"{path} is torn: line {number} lacks {lacking}; remove that line")
    return entries


def _configurations(records: Sequence[RunRecord]) -> tuple[Configuration, ...]:
    groups: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for record in records:
        groups[record.family, record.setting()].append(record)
    grouped = [tuple(sorted(group, key=lambda record: record.recipe.seed)) for group in groups.values()]
    for one, other in (pair for group in grouped for pair in pairwise(group)):
        if one.recipe.seed == other.recipe.seed:
            raise EvergraftError(
                f"{one.folder} and {other.folder} are runs of one recipe and seed; report on one of them at a time"
            )
    labels = _labels([group[0] for group in grouped])
    return tuple(Configuration(label, group) for label, group in zip(labels, grouped, strict=True))


def _labels(records: Sequence[RunRecord]) -> list[str]:
    """For each record its family, model, density, block and workload as far as records differ in them, for figures
    under other workloads are not compared; then whatever else it takes to tell it from those that these leave alike:
    other fields, another config.json of that name.
    """
    labels = [record.family for record in records]
    for fields in (("model",), ("density", "block"), WORKLOAD, OTHERS):
        alike = defaultdict(list)
        for index, label in enumerate(labels):
            alike[label if fields is OTHERS else ""].append(index)
        for group in alike.values():
            words = distinctions([records[index] for index in group], fields)
            for index, told in zip(group, words, strict=True):
                labels[index] = f"{labels[index]} {told}".rstrip()
    return labels


def distinctions(records: Sequence[RunRecord], fields: Sequence[str] = OTHERS) -> list[str]:
    """What tells each run from the others, of these facts: `updates 80`; empty where nothing does."""
    facts = [record.facts for record in records]
    varied = [name for name in fields if len({repr(each[name]) for each in facts}) > 1]
    models = {each["model"] for each in facts}
    short = len({Path(model).stem for model in models}) == len(models)
    return [" ".join(filter(None, (_named_value(name, each, short) for name in varied))) for each in facts]


def _named_value(name: str, facts: Mapping[str, Any], short: bool) -> str:
    """Args: short: whether a model's file name, without its folder and ending, tells it from the others."""
    value = facts[name]
    if facts["density"] == 1 and name in ("density", "block"):
        return ""
    match name:
        case "model":
            return Path(value).stem if short else str(value)
        case "density":
            return f"d{value}"
        case "block":
            return str(value)
        case "corpus_identity" | "model_identity":
            return f"{name.removesuffix('_identity')} {str(value)[:8]}"
        case _:
            return f"{name.replace('_', ' ')} {value}"
