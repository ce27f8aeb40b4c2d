"""Whether our losses fall in the order of the paper's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evergraft.study.collection import Configuration, best_of
from evergraft.study.facts import EVOLUTION, MODEL, SPARSITY, TUNED, TUNING, as_text, distinctions, spoken
from evergraft.study.paper import PUBLISHED, PublishedTable
from evergraft.study.statistics import Estimate, paired_difference, verdict

FOLLOWING = {"block": ("updates",), "family": ("updates",)}  # what the paper tuned for each row of a table by these


@dataclass(frozen=True)
class ComparedRow:
    """One row of a published table beside ours, in the paper's order from the best to the worst.

    Attributes:
        setting: the row's facts.
        published: the paper's loss, nats.
        configuration: ours; of several that have the row's facts, the best (`best_of`).
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
        shared: what these configurations of ours have in common, beyond the table's own facts, and others do not.
        rows: at least two.
    """

    table: PublishedTable
    shared: str
    rows: tuple[ComparedRow, ...]


def comparisons(configurations: Sequence[Configuration]) -> list[Comparison]:
    """Every published table of which the configurations cover at least two rows.

    Configurations that also differ in facts that a table does not vary are compared apart, group by group. Of those
    that differ in nothing but what was tuned (the learning rate, or the number of updates where the paper tuned it for
    each row), the best one is taken.
    """
    return [
        Comparison(table, shared, _rows(table, members))
        for table in PUBLISHED
        for shared, members in _groups(table, configurations)
        if len(members) > 1
    ]


def compared_facts(configuration: Configuration) -> dict[str, Any]:
    """What configurations must share to be rows of one table, but for what the table varies.

    It is the family, the model, how it is sparse, how its topology evolves, how it is trained but for what is tuned,
    and the conditions of training and measuring.
    """
    known = configuration.recipe.effective.model_dump(mode="json")
    how = [*SPARSITY, *EVOLUTION, *(name for name in TUNING if name not in TUNED)]
    return {
        "family": configuration.family,
        MODEL: configuration.recipe.model,
        "config": configuration.size[1],
        **{name: _comparable(known[name]) for name in how},
        "block": configuration.block,
        **configuration.conditions,
    }


def _comparable(value: Any) -> Any:
    return as_text(value) if isinstance(value, (list, dict)) else value


def _groups(
    table: PublishedTable, configurations: Sequence[Configuration]
) -> list[tuple[str, dict[tuple[Any, ...], list[Configuration]]]]:
    """The configurations by what they share, in words, and within that by the row of the table that they have."""
    ignored = {*table.by, *table.fixed, *(name for fact in table.by for name in FOLLOWING.get(fact, ()))}
    groups: dict[tuple[tuple[str, Any], ...], dict[tuple[Any, ...], list[Configuration]]]
    groups = defaultdict(lambda: defaultdict(list))
    for configuration in configurations:
        facts = compared_facts(configuration)
        setting = tuple(facts[name] for name in table.by)
        if setting in table.rows and all(facts[name] == value for name, value in table.fixed.items()):
            shared = tuple((name, value) for name, value in facts.items() if name not in ignored)
            groups[shared][setting].append(configuration)
    varied = {facts[0][0] for facts in zip(*groups, strict=True) if len(set(facts)) > 1}
    return [
        (", ".join(f"{spoken(name)} {value}" for name, value in key if name in varied), members)
        for key, members in groups.items()
    ]


def _rows(table: PublishedTable, members: Mapping[tuple[Any, ...], Sequence[Configuration]]) -> tuple[ComparedRow, ...]:
    ordered = sorted(members, key=lambda setting: table.rows[setting])
    rows: list[ComparedRow] = []
    for setting in ordered:
        words = distinctions([one.first.facts for one in members[setting]])
        ours = best_of(members[setting])
        chosen = words[members[setting].index(ours)]
        before = rows[-1].configuration if rows else None
        difference = paired_difference(before.losses, ours.losses) if before else None
        rows.append(ComparedRow(setting, table.rows[setting], ours, chosen, difference))
    return tuple(rows)
