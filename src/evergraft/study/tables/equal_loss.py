"""What sparse configurations cost at the loss of dense ones."""

from __future__ import annotations

from evergraft.study.collection import Collection
from evergraft.study.paper import PUBLISHED_FLOP_RATIOS
from evergraft.study.pareto import BYTES, FLOPS, SECONDS, against_dense
from evergraft.study.sections import Part
from evergraft.study.tables import Table
from evergraft.study.tables._cells import at_equal, seeds

HEADER = ("configuration", "FLOP ratio", "critical cost", "wall-clock ratio", "memory ratio", "shared seeds")
NOTE = (
    "Cost of a sparse configuration over that of the dense family at the same validation MLM loss, by log-log "
    "interpolation between the dense models of the same seed; below 1 is a win. Geometric means with 95 % "
    "intervals, Student's t of the logarithms over the seeds that all of them share. Nothing is extrapolated: "
    "where the loss of a seed is not between dense models there is no ratio; those that another one beats in both "
    "cost and loss are passed over. The critical cost is how many times slower a sparse FLOP may run than a dense "
    "one before the win is lost. Memory is that of the encoder's linear layers in training (weights, gradients, "
    "Adam's moments, indices), by the ledger; activations, which grow with a model's width, are not in it. The "
    f"paper's FLOP ratios: {PUBLISHED_FLOP_RATIOS}."
)


def equal_loss_table(collection: Collection) -> Table:
    """A table with a row for each sparse configuration that has a dense family of two sizes or more."""
    rows = tuple(
        (
            one.configuration.label,
            at_equal(one.ratio(FLOPS)),
            "-" if one.critical_cost is None else f"{one.critical_cost:.2f}",
            at_equal(one.ratio(SECONDS)),
            at_equal(one.ratio(BYTES)),
            seeds(one.ratio(FLOPS)),
        )
        for one in against_dense(collection.configurations)
    )
    return Table("equal-loss", "Cost at equal loss", NOTE, HEADER, rows)


TABLE = Part("pareto", lambda collection: [equal_loss_table(collection)])
