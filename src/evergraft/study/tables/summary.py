"""The results of every configuration."""

from __future__ import annotations

from evergraft.study.collection import Collection, Configuration
from evergraft.study.sections import Part
from evergraft.study.statistics import INTERVAL
from evergraft.study.tables import Table

HEADER = (
    "configuration", "seeds", "density got", "MLM loss, nats", "NSP loss, nats",
    "FLOPs", "seconds", "explored", "removed-new ratio",
)  # fmt: skip
NOTE = (
    f"Validation losses after training; {INTERVAL}. FLOPs are those of the encoder. Seconds are those of training "
    "alone, at the median pace of a run's log windows, measured on the machines named below with whatever else ran "
    "there."
)


def summary(collection: Collection) -> Table:
    """A table with one row for each configuration."""
    rows = tuple(
        (
            one.label,
            str(len(one.records)),
            f"{one.first.result.density:.4f}",
            one.loss.text(4),
            one.estimate(lambda record: record.result.validation_nsp_loss).text(4),
            f"{one.estimate(lambda record: record.result.flops_total).mean:.3e}",
            one.estimate(lambda record: record.steady_seconds).text(1),
            _optional(one, "explored"),
            _optional(one, "removed_new_ratio"),
        )
        for one in collection.configurations
    )
    return Table("summary", "Results", NOTE, HEADER, rows)


def _optional(one: Configuration, name: str) -> str:
    """The mean of a number of the result; a dash where runs have none."""
    if getattr(one.first.result, name) is None:
        return "-"
    return one.estimate(lambda record: getattr(record.result, name)).text()


TABLE = Part("results", lambda collection: [summary(collection)])
