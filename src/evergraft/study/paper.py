"""The paper's own figures (arXiv 2108.06277; docs/method.md, section 5), and whether ours fall in the same order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evergraft.study.collection import CONDITIONS, Configuration, best_of, distinctions
from evergraft.study.statistics import Estimate, paired_difference, verdict


@dataclass(frozen=True)
class PublishedTable:
    """One table of the paper: validation MLM loss, nats, 10 epochs of Wikipedia and books.

    Attributes:
        title: what it is.
        by: the facts that its rows vary.
        rows: values of those facts -> loss.
        fixed: facts that a configuration must share to be compared with it; the model's size and the length of training
            are not among them: what is compared is the order.
    """

    title: str
    by: tuple[str, ...]
    rows: Mapping[tuple[Any, ...], float]
    fixed: Mapping[str, Any]


PUBLISHED = (
    PublishedTable(
        "Dense, by size", ("model",), {("mini",): 2.606, ("small",): 2.310, ("medium",): 2.115, ("base",): 1.843},
        {"family": "dense"},
    ),
    PublishedTable(
        "Base, dynamic, density 0.1, by block", ("block",),
        {("1x1",): 2.160, ("4x4",): 2.272, ("8x8",): 2.295, ("16x16",): 2.311}, {"family": "dynamic", "density": 0.1},
    ),
    PublishedTable(
        "Medium, dynamic, density 0.1, by block", ("block",),
        {("1x1",): 2.408, ("4x4",): 2.546, ("8x8",): 2.591, ("16x16",): 2.621}, {"family": "dynamic", "density": 0.1},
    ),
    PublishedTable(
        "Medium, static, by density", ("density",), {(0.75,): 2.186, (0.5,): 2.283, (0.25,): 2.446, (0.1,): 2.648},
        {"family": "static"},
    ),
    PublishedTable(
        "Small, static, by density", ("density",),
        {(0.75,): 2.390, (0.5,): 2.485, (0.25,): 2.637, (0.1,): 2.829, (0.01,): 3.244}, {"family": "static"},
    ),
    PublishedTable(
        "Medium, density 0.1, 1x1: static against dynamic", ("family",),
        {("static",): 2.648, ("dynamic",): 2.408}, {"density": 0.1, "block": "1x1"},
    ),
    PublishedTable(
        "Medium, dynamic, density 0.1, 1x1, by number of updates", ("updates",),
        {(40,): 2.468, (80,): 2.430, (160,): 2.409, (320,): 2.419},
        {"family": "dynamic", "density": 0.1, "block": "1x1", "prune_ratio": 0.5},
    ),
    PublishedTable(
        "Medium, dynamic, density 0.1, 16x16, by number of updates", ("updates",),
        {(40,): 2.616, (80,): 2.606, (160,): 2.633, (320,): 2.645},
        {"family": "dynamic", "density": 0.1, "block": "16x16", "prune_ratio": 0.5},
    ),
    PublishedTable(
        "Medium, dynamic, density 0.1, 1x1, by pruning ratio", ("prune_ratio",),
        {(0.25,): 2.439, (0.5,): 2.413, (0.75,): 2.411, (1.0,): 2.459},
        {"family": "dynamic", "density": 0.1, "block": "1x1"},
    ),
    PublishedTable(
        "Medium, dynamic, density 0.1, 16x16, by pruning ratio", ("prune_ratio",),
        {(0.25,): 2.648, (0.5,): 2.633, (0.75,): 2.634, (1.0,): 2.675},
        {"family": "dynamic", "density": 0.1, "block": "16x16"},
    ),
    PublishedTable(
        "Medium, dynamic, density 0.1, 16x16, by block norm (middle of the published range)", ("prune_by",),
        {("l1",): 2.609, ("l2",): 2.619, ("linf",): 2.6345}, {"family": "dynamic", "density": 0.1, "block": "16x16"},
    ),
    PublishedTable(
        "Medium, dynamic, density 0.01, by pruning ratio", ("prune_ratio",),
        {(0.1,): 2.999, (0.25,): 2.939, (0.5,): 2.889, (0.75,): 2.872}, {"family": "dynamic", "density": 0.01},
    ),
)  # fmt: skip
PUBLISHED_FLOP_RATIOS = "Base: 0.48 to 0.5 for 1x1, 0.83 for 16x16"


@dataclass(frozen=True)
class ComparedRow:
    """One row of a published table beside ours, in the paper's order from the best to the worst.

    Attributes:
        setting: the row's facts.
        published: the paper's loss.
        configuration: ours; of several that have its facts, the best (`best_of`).
        chosen: what tells that one from the others, such as `updates 80`; empty where there was one alone.
        difference: ours minus ours of the row before, paired by seed; None for the first row, or without a shared seed.
    """

    setting: tuple[Any, ...]
    published: float
    configuration: Configuration
    chosen: str
    difference: Estimate | None

    @property
    def same_order(self) -> str:
        """Whether ours follows the row before as the paper's does, and whether that is within noise."""
        return verdict(self.difference, lambda mean: mean > 0)


@dataclass(frozen=True)
class Comparison:
    """A published table beside the configurations of ours that differ in its facts alone.

    Attributes:
        table: the paper's.
        shared: what ours have in common beyond the table's own facts.
        rows: at least two.
    """

    table: PublishedTable
    shared: str
    rows: tuple[ComparedRow, ...]


def comparisons(configurations: Sequence[Configuration]) -> list[Comparison]:
    """Every published table of which the configurations cover at least two rows.

    Configurations that also differ in facts that a table does not vary, GROUPED_BY, are compared apart, group by group;
    of those that differ in nothing but the learning rate, or the number of updates where the paper tuned it for each
    row, the best one is taken.
    """
    return [
        Comparison(table, shared, _rows(table, members))
        for table in PUBLISHED
        for shared, members in _groups(table, configurations)
        if len(members) > 1
    ]


def facts(configuration: Configuration) -> dict[str, Any]:
    """What tables go by: the fields of its recipe, its conditions, its block as text, its family."""
    values = configuration.recipe.effective.model_dump(mode="json") | configuration.conditions
    return values | {"block": configuration.block, "family": configuration.family, "config": configuration.size[1]}


GROUPED_BY = (
    "family", "model", "config", "density", "block", "updates", "prune_ratio", "prune_by", "prune_decay", "group_lasso",
    "warmup", "weight_decay", "max_gradient_norm",
    "corpus", "steps", *CONDITIONS,
)  # fmt: skip
FOLLOWING = {"block": ("updates",), "family": ("updates",)}  # what the paper tuned for each


def _groups(
    table: PublishedTable, configurations: Sequence[Configuration]
) -> list[tuple[str, dict[tuple[Any, ...], list[Configuration]]]]:
    ignored = {*table.by, *table.fixed, *(name for fact in table.by for name in FOLLOWING.get(fact, ()))}
    kept = [name for name in GROUPED_BY if name not in ignored]
    groups: dict[tuple[Any, ...], dict[tuple[Any, ...], list[Configuration]]] = defaultdict(lambda: defaultdict(list))
    for configuration in configurations:
        known = facts(configuration)
        setting = tuple(known[name] for name in table.by)
        if setting in table.rows and all(known[name] == value for name, value in table.fixed.items()):
            groups[tuple(known[name] for name in kept)][setting].append(configuration)
    differing = [index for index in range(len(kept)) if len({key[index] for key in groups}) > 1]
    return [
        (", ".join(f"{kept[index].replace('_', ' ')} {key[index]}" for index in differing), members)
        for key, members in groups.items()
    ]


def _rows(table: PublishedTable, members: Mapping[tuple[Any, ...], Sequence[Configuration]]) -> tuple[ComparedRow, ...]:
    ordered = sorted(members, key=lambda setting: table.rows[setting])
    rows: list[ComparedRow] = []
    for setting in ordered:
        chosen = distinctions([one.records[0] for one in members[setting]])
        ours = best_of(members[setting])
        told = chosen[members[setting].index(ours)]
        before = rows[-1].configuration if rows else None
        difference = paired_difference(before.losses, ours.losses) if before else None
        rows.append(ComparedRow(setting, table.rows[setting], ours, told, difference))
    return tuple(rows)
