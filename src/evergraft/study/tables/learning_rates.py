"""The best learning rate by density beside the paper's formula."""

from __future__ import annotations

from evergraft.study.collection import Collection, Configuration
from evergraft.study.rates import sweeps
from evergraft.study.sections import Part
from evergraft.study.statistics import INTERVAL, log_t_interval, paired_difference
from evergraft.study.tables import Table
from evergraft.study.tables._cells import nats

HEADER = (
    "configuration", "sparsity", "best rate", "loss there", "other rates: loss above that", "optimum",
    "over the dense optimum", "formula",
)  # fmt: skip
NOTE = (
    "Validation MLM losses, nats; differences are paired by seed. The optimum is where a parabola through the best "
    "rate and its two neighbours is lowest, over the logarithm of the rate and for each seed apart. The formula: "
    f"eta(s) / eta(0) = exp(1.969 s^2 + 0.2905 s). {INTERVAL}, of rates and their ratios those of the logarithms."
)


def learning_rates(collection: Collection) -> Table:
    """A table with a row for each model and density that three learning rates or more were tried with."""
    rows = tuple(
        (
            " ".join(dict.fromkeys((sweep.best.family, sweep.best.model, sweep.best.block))),
            f"{1 - sweep.best.recipe.density:g}",
            f"{sweep.best.recipe.learning_rate:g}" + " (at the edge)" * sweep.at_edge,
            sweep.best.loss.text(4),
            ", ".join(_above(sweep.best, other) for other in sweep.by_rate if other is not sweep.best),
            log_t_interval(list(sweep.optima.values())).text(5) if sweep.optima else "-",
            sweep.over_dense.text(2) if sweep.over_dense else "-",
            f"{sweep.factor:.2f}",
        )
        for sweep in sweeps(collection.configurations)
    )
    return Table("learning-rate", "Learning rates", NOTE, HEADER, rows)


def _above(best: Configuration, other: Configuration) -> str:
    return f"{other.recipe.learning_rate:g}: {nats(paired_difference(best.losses, other.losses))}"


TABLE = Part("rates", lambda collection: [learning_rates(collection)])
