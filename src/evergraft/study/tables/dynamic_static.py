"""Dynamic configurations beside the static ones that are like them otherwise."""

from __future__ import annotations

from evergraft.study.collection import Collection
from evergraft.study.sections import Part
from evergraft.study.statistics import INTERVAL, paired_difference, verdict
from evergraft.study.tables import Table
from evergraft.study.tables._cells import nats, seeds

HEADER = ("configuration", "static", "dynamic", "dynamic - static", "shared seeds", "dynamic better?")
NOTE = (
    "Validation MLM loss, nats. The paper finds dynamic below static at every sparsity. Differences are paired by "
    f"seed, over those that both have; {INTERVAL}; within noise: the interval holds zero."
)


def dynamic_against_static(collection: Collection) -> Table:
    """A table with a row for each dynamic configuration that has a static one differing in nothing else."""
    static = {one.first.static_setting: one for one in collection.family("static")}
    rows = []
    for one in collection.family("dynamic"):
        other = static.get(one.first.static_setting)
        if other is None:
            continue
        difference = paired_difference(other.losses, one.losses)
        better = verdict(difference, lambda mean: mean < 0)
        rows.append((one.label, other.loss.text(4), one.loss.text(4), nats(difference), seeds(difference), better))
    return Table("dynamic-static", "Dynamic against static", NOTE, HEADER, tuple(rows))


TABLE = Part("static", lambda collection: [dynamic_against_static(collection)])
