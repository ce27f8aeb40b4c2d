"""Bytes of the encoder's linear layers in training."""

from __future__ import annotations

from evergraft.study.collection import Collection, Configuration
from evergraft.study.sections import Part
from evergraft.study.tables import Table

HEADER = ("configuration", "weights", "gradients", "Adam's moments", "indices", "of dense")
NOTE = "Megabytes of the encoder's linear layers in training, by the ledger: shapes counted, not peaks measured."


def memory(collection: Collection) -> Table:
    """A table with one row for each configuration."""
    return Table("memory", "Memory", NOTE, HEADER, tuple(map(_row, collection.configurations)))


def _row(one: Configuration) -> tuple[str, ...]:
    sparse, dense = one.first.result.bytes, one.first.result.bytes_dense
    sizes = (sparse.weights, sparse.gradients, sparse.optimizer, sparse.indices)
    return one.label, *(f"{size / 1e6:.2f}" for size in sizes), f"{sparse.total / dense.total:.3f}"


TABLE = Part("memory", lambda collection: [memory(collection)])
