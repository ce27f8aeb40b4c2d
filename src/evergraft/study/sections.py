"""The sections of a report in their order, and the parts, charts and tables, that each of them shows.

A part is one file: a module of `study/charts/` that defines `CHART`, or of `study/tables/` that defines `TABLE`. It
says which section it stands in and where, and is shown wherever runs have something for it to show. Other packages
offer theirs in the entry-point groups `evergraft.charts` and `evergraft.tables`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Generic, TypeVar

from evergraft.registry import Registry
from evergraft.study.collection import Collection

T = TypeVar("T")


@dataclass(frozen=True)
class Section:
    """One section of a report.

    Attributes:
        key: names it in links, and in parts.
        title: its heading.
        text: how to read its charts; empty where there is nothing to say.
    """

    key: str
    title: str
    text: str = ""


SECTIONS = (
    Section("results", "Results"),
    Section(
        "pareto",
        "Loss against cost",
        "Every point is the mean of a configuration over its seeds; both axes are logarithmic; lines join each "
        "family's Pareto front, under each of the conditions it was trained in. Sparse points below the dense line "
        "of their own conditions win at equal cost; the distance to it along the cost axis is, for one seed, the "
        "ratio at equal loss.",
    ),
    Section("static", "Dynamic against static"),
    Section("paper", "Beside the paper"),
    Section("rates", "Learning rates"),
    Section(
        "curves",
        "Training",
        "Losses logged while training, each over the steps since the line before: means over seeds, or the first "
        "seed alone where seeds were logged at different steps. The buttons change what is on the horizontal axis; "
        "a click in the legend hides a line, a double click all others.",
    ),
    Section(
        "exploration",
        "Exploration",
        "Explored degrees of freedom: the share of weights that were ever active. Removed-new ratio: the share of "
        "the blocks grown at one update that the next one pruned. Where blocks are high, some inputs of a layer are "
        "read by none of them, and some outputs have no input: such units learn nothing. All of the first seed.",
    ),
    Section("transfer", "Fine-tuning"),
    Section("memory", "Memory"),
)


@dataclass(frozen=True)
class Part(Generic[T]):
    """A chart or a table of a report, or several of a kind.

    Attributes:
        section: the key of its section.
        make: makes what there is to show of a collection; nothing if it has nothing to show.
        place: parts of one section stand in the order of their places.
    """

    section: str
    make: Callable[[Collection], Iterable[T]]
    place: int = 0


PART = tuple(field.name for field in fields(Part))  # what an object must have to be one


def parts_of(section: Section, registry: Registry[Part[T]], collection: Collection) -> list[T]:
    """What a section shows of a collection: the charts or tables of the registry's parts for it, in order."""
    parts = [part for part in map(registry.get, registry.names()) if part.section == section.key]
    ordered = sorted(parts, key=lambda part: part.place)
    return [one for part in ordered for one in part.make(collection)]
