"""The paper's tables beside ours."""

from __future__ import annotations

from evergraft.study.collection import Collection
from evergraft.study.comparison import Comparison, comparisons
from evergraft.study.facts import spoken
from evergraft.study.sections import Part
from evergraft.study.tables import Table
from evergraft.study.tables._cells import nats, seeds

NOTE = (
    "Validation MLM loss, nats, from the paper's best to its worst. Ours are other models, text and lengths of "
    "training: what is compared is the order. Each row is compared with the row above it, paired by seed. In "
    "brackets: what ours has where it is the best of several."
)


def comparison_table(comparison: Comparison, number: int) -> Table:
    """A table of the paper beside ours.

    Args:
        comparison: the comparison, each row of which becomes a row of the table.
        number: its place among these tables; the first, 0, says how to read them all.
    """
    rows = tuple(
        (
            ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in row.setting),
            f"{row.published:.3f}",
            row.configuration.loss.text(4) + f" ({row.chosen})" * bool(row.chosen),
            nats(row.difference),
            seeds(row.difference),
            row.same_order,
        )
        for row in comparison.rows
    )
    shared = f" (ours: {comparison.shared})" if comparison.shared else ""
    header = (
        ", ".join(map(spoken, comparison.table.by)),
        "paper", "ours", "ours - row above", "shared seeds", "same ordering? within noise?",
    )  # fmt: skip
    title = f"Beside the paper: {comparison.table.title}{shared}"
    return Table(f"paper-{number}", title, "" if number else NOTE, header, rows)


def _tables(collection: Collection) -> list[Table]:
    found = comparisons(collection.configurations)
    return [comparison_table(comparison, number) for number, comparison in enumerate(found)]


TABLE = Part("paper", _tables)
