"""A study file: a grid over the fields of recipes, and the runs that it names."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from evergraft.errors import EvergraftError
from evergraft.files.yaml import read_yaml
from evergraft.runs.recipe import Recipe, recipe_from, with_fields
from evergraft.settings import SEEDS
from evergraft.study.facts import FIRST

Fields = dict[str, Any]
Seed = Annotated[int, Field(ge=0, lt=SEEDS)]
FAMILY, ZIP = "family", "zip"


class StudyFile(BaseModel):
    """What a study file may hold (docs/studies.md)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    question: str = ""
    base: Fields | str = Field(default_factory=dict)
    seeds: list[Seed] = Field([0], min_length=1)
    grid: Annotated[list[Fields], BeforeValidator(lambda grid: [grid] if isinstance(grid, dict) else grid)] = Field(
        min_length=1
    )
    output: Path | None = None


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study.

    Attributes:
        name: tells it from the others, by its family, the fields that its grid names, and its seed.
        family: `dense`, `static`, `dynamic`, or what the study file calls it.
        recipe: as the study asks for it; the run's own recipe.yaml has every default filled in.
        folder: the run's folder.
    """

    name: str
    family: str
    recipe: Recipe
    folder: Path

    @property
    def recipe_file(self) -> Path:
        """The file with the recipe as the study asks for it, beside the run's folder."""
        return self.folder.parent / f"{self.name}.yaml"

    @property
    def log(self) -> Path:
        """The file with what the run's process printed; the process holds a lock on it while it runs."""
        return self.folder.parent / f"{self.name}.log"

    @property
    def error(self) -> Path:
        """The file with the reason why the run failed, in one sentence; there is none if it did not."""
        return self.folder.parent / f"{self.name}.error"


@dataclass(frozen=True)
class Study:
    """A study, checked and expanded.

    Attributes:
        path: the study's file.
        title: what it is called.
        question: what it asks; may be empty.
        output: the folder that holds the folders of its runs.
        runs: in the order they are run: every configuration with its first seed, then with the next, so that a study
            cut short has seen all of them.
    """

    path: Path
    title: str
    question: str
    output: Path
    runs: tuple[PlannedRun, ...]


def load_study(path: Path) -> Study:
    """Read a study file (docs/studies.md) and expand its grid.

    Raises:
        EvergraftError: a file that is missing or not YAML, an unknown field, a value that no recipe may hold, zipped
            lists of different lengths, two runs of one name, or one run under two names.

    Example:
        >>> study = load_study(Path("studies/static-dynamic.yaml"))
        >>> len(study.runs)
        12
        >>> study.runs[0].family
        'static'
    """
    fields = read_yaml(path, "study")
    try:
        file = StudyFile.model_validate(fields)
    except ValidationError as error:
        raise EvergraftError(f"{path}: {_sentence(error)}") from None
    if len(set(file.seeds)) < len(file.seeds):
        raise EvergraftError(f"{path}: seeds must differ from each other; got {file.seeds}")
    base = _base(path, file.base)
    output = file.output or Path("runs") / path.stem
    runs = [
        _planned(path, seed, base, entry, point, output)
        for seed in file.seeds
        for entry in file.grid
        for point in _points(path, entry)
    ]
    name, count = Counter(run.name for run in runs).most_common(1)[0]
    if count > 1:
        raise EvergraftError(
            f"{path}: {count} runs would be called {name}; give their grids different values, or each a `{FAMILY}`"
        )
    _check_distinct(path, runs)
    return Study(path, file.title, file.question, output, tuple(runs))


def family_of(recipe: Recipe) -> str:
    """The family of a run by its recipe: `dense`, `static` or `dynamic`."""
    if recipe.is_dense:
        return "dense"
    return "dynamic" if recipe.updates_or_default else "static"


def _check_distinct(path: Path, runs: Sequence[PlannedRun]) -> None:
    """Check that no two runs of a family differ only in fields that have no effect on them."""
    found: dict[tuple[str, str], PlannedRun] = {}
    for run in runs:
        other = found.setdefault((run.family, run.recipe.effective.model_dump_json()), run)
        if other is not run:
            raise EvergraftError(
                f"{path}: {other.name} and {run.name} would be one run twice (a dense model has no blocks and no "
                "updates, a static one prunes nothing); give it a grid of its own"
            )


def _base(path: Path, base: Fields | str) -> Fields:
    fields = read_yaml(path.parent / base, "recipe") if isinstance(base, str) else base
    if "seed" in fields:
        raise EvergraftError(f"{path}: base names a seed; list seeds under `seeds`")
    return fields


def _points(path: Path, entry: Fields) -> Iterator[Fields]:
    """The points of one grid: zipped fields walk together, all others are crossed; a single value is a list of one."""
    zipped = entry.get(ZIP, {})
    if not isinstance(zipped, dict) or not all(isinstance(values, list) for values in zipped.values()):
        raise EvergraftError(f"{path}: `{ZIP}` must hold `field: [values]` lines; got {zipped!r}")
    empty = [name for name, values in [*entry.items(), *zipped.items()] if values == []]
    if empty:
        raise EvergraftError(f"{path}: {empty[0]} has no values; give it one or more, or leave it out of the grid")
    lengths = {name: len(values) for name, values in zipped.items()}
    if len(set(lengths.values())) > 1:
        got = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise EvergraftError(f"{path}: lists under `{ZIP}` must be equally long; {got}")
    crossed = {name: _listed(values) for name, values in entry.items() if name not in (FAMILY, ZIP)}
    if both := crossed.keys() & zipped.keys():
        raise EvergraftError(f"{path}: {min(both)} stands in a grid and under its `{ZIP}`; keep one of them")
    if not isinstance(entry.get(FAMILY, ""), str):
        raise EvergraftError(f"{path}: `{FAMILY}` must be one name; got {entry[FAMILY]!r}; give each a grid of its own")
    if "seed" in (crossed | zipped):
        raise EvergraftError(f"{path}: a grid names a seed; list seeds under `seeds`")
    together = [dict(zip(zipped, values, strict=True)) for values in zip(*zipped.values(), strict=True)] or [{}]
    for walked in together:
        for values in itertools.product(*crossed.values()):
            yield walked | dict(zip(crossed, values, strict=True))


def _listed(values: Any) -> list[Any]:
    return values if isinstance(values, list) else [values]


def _planned(path: Path, seed: int, base: Fields, entry: Fields, point: Fields, output: Path) -> PlannedRun:
    recipe = recipe_from({**with_fields(base, point), "seed": seed}, path)
    family = entry.get(FAMILY) or family_of(recipe)
    name = _name(family, recipe, [field for field, value in point.items() if value is not None])
    return PlannedRun(name, family, recipe, output / name)


def _name(family: str, recipe: Recipe, fields: list[str]) -> str:
    values = recipe.model_dump(mode="json")
    block = [values["block"]] if not recipe.is_dense else []
    others = [f"{name}{value}" for name, value in values.items() if name in fields and name not in FIRST]
    parts = [family, Path(recipe.model).stem, f"d{recipe.density:g}", *block, *others, f"s{recipe.seed}"]
    return "-".join(re.sub(r"[^\w.]+", "_", part) for part in parts)


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return f"{name}: no such field; a study has {', '.join(StudyFile.model_fields)}"
    if first["type"] == "missing":
        return f"{name} is missing; a study needs title and grid"
    return f"{name}: {first['msg']}; got {first['input']!r}"
