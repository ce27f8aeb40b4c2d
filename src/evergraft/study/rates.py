"""Learning rate against sparsity: the best rate at each density, beside the paper's formula."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evergraft.family import learning_rate_factor
from evergraft.study.results import Configuration
from evergraft.study.statistics import Estimate, log_t_interval


@dataclass(frozen=True)
class Sweep:
    """One model at one density, trained at several learning rates.

    Attributes:
        best: the configuration whose loss is the lowest in the mean over seeds.
        others: the rest, by rising rate.
        optima: for each seed, the rate at which a parabola through the losses of the best rate and its two neighbours
            is lowest, over the logarithm of the rate; empty where the best lies at the edge, or where a parabola has
            no lowest point.
        dense: of a sparse model, the sweep of the dense one, if there is one.
    """

    best: Configuration
    others: tuple[Configuration, ...]
    optima: Mapping[int, float]
    dense: Sweep | None = None

    @property
    def at_edge(self) -> bool:
        """Whether no lower or no higher rate was tried than the best."""
        rates = [_rate(one) for one in self.others]
        return not min(rates) < _rate(self.best) < max(rates)

    @property
    def factor(self) -> float:
        """The formula's: eta(s) / eta(0) = exp(1.969 s^2 + 0.2905 s) (docs/method.md, section 3)."""
        return learning_rate_factor(self.best.recipe.density)

    @property
    def over_dense(self) -> Estimate | None:
        """The optimum over the dense model's of the same seed: what the formula's factor predicts."""
        dense = self.dense.optima if self.dense else {}
        shared = sorted(self.optima.keys() & dense.keys())
        return log_t_interval([self.optima[seed] / dense[seed] for seed in shared]) if shared else None


def sweeps(configurations: Sequence[Configuration]) -> list[Sweep]:
    """Whatever was trained at three rates or more, and differs in nothing else."""
    groups: dict[str, list[Configuration]] = defaultdict(list)
    for one in configurations:
        groups[one.family + one.recipe.model_copy(update={"seed": 0, "learning_rate": 1}).to_yaml()].append(one)
    swept = [sorted(members, key=_rate) for members in groups.values() if len(members) > 2]
    found = [_sweep(members) for members in swept]
    dense = {_model_and_length(sweep.best): sweep for sweep in found if sweep.best.family == "dense"}
    return [
        sweep if sweep.best.family == "dense" else replace(sweep, dense=dense.get(_model_and_length(sweep.best)))
        for sweep in found
    ]


def _sweep(by_rate: Sequence[Configuration]) -> Sweep:
    best = min(by_rate, key=lambda one: one.loss.mean)
    place = by_rate.index(best)
    others = tuple(one for one in by_rate if one is not best)
    return Sweep(best, others, _optima(by_rate[max(place - 1, 0) : place + 2]))


def _optima(around: Sequence[Configuration]) -> dict[int, float]:
    losses = [one.by_seed("validation_mlm_loss") for one in around]
    if len(around) < 3:
        return {}
    logs = [math.log(_rate(one)) for one in around]
    optima = {}
    for seed in sorted(set.intersection(*(set(each) for each in losses))):
        curvature, slope, _ = np.polyfit(logs, [each[seed] for each in losses], 2)
        if curvature <= 0:
            return {}
        optima[seed] = math.exp(-slope / (2 * curvature))
    return optima


def _model_and_length(one: Configuration) -> tuple[Any, ...]:
    return one.recipe.model, one.length


def _rate(one: Configuration) -> float:
    return one.recipe.learning_rate or 0
