"""Learning rate against sparsity: the best rate at each density, beside the paper's formula."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from evergraft.bert.sizes import learning_rate_factor
from evergraft.study.collection import Configuration, best_of
from evergraft.study.statistics import Estimate, log_t_interval


@dataclass(frozen=True)
class Sweep:
    """One model at one density, trained at three learning rates or more.

    Attributes:
        by_rate: its configurations, by rising rate.
        dense: the sweep of the dense model of that size, if there is one.
    """

    by_rate: tuple[Configuration, ...]
    dense: Sweep | None = None

    @cached_property
    def best(self) -> Configuration:
        """The configuration whose loss is the lowest in the mean over seeds, of those with the most of them."""
        return best_of(self.by_rate)

    @property
    def at_edge(self) -> bool:
        """Whether no lower or no higher rate was tried than the best."""
        return self.best in (self.by_rate[0], self.by_rate[-1])

    @property
    def factor(self) -> float:
        """The paper's formula for the optimum over the dense one, exp(1.969 s^2 + 0.2905 s) at sparsity s.

        It is that of docs/method.md, section 3.
        """
        return learning_rate_factor(self.best.recipe.density)

    @cached_property
    def optima(self) -> dict[int, float]:
        """For each seed, the rate at which a parabola through the losses of the best rate and its neighbours is lowest.

        The parabola is over the logarithm of the rate. Nothing is extrapolated: there is no optimum where the best rate
        lies at the edge, nor where the parabola of some seed is not lowest between the neighbours.
        """
        if self.at_edge:
            return {}
        place = self.by_rate.index(self.best)
        around = self.by_rate[place - 1 : place + 2]
        logs = [math.log(_rate(one)) for one in around]
        losses = [one.losses for one in around]
        optima = {}
        for seed in sorted(set.intersection(*(set(each) for each in losses))):
            curvature, slope, _ = np.polyfit(logs, [each[seed] for each in losses], 2)
            lowest = -slope / (2 * curvature) if curvature > 0 else math.inf
            if not logs[0] <= lowest <= logs[-1]:
                return {}
            optima[seed] = math.exp(lowest)
        return optima

    @property
    def over_dense(self) -> Estimate | None:
        """The sparse model's optimum over the dense one's, paired by seed; the formula predicts `factor` for it."""
        dense = self.dense.optima if self.dense and not self.best.dense else {}
        shared = sorted(self.optima.keys() & dense.keys())
        return log_t_interval([self.optima[seed] / dense[seed] for seed in shared]) if shared else None


def sweeps(configurations: Sequence[Configuration]) -> list[Sweep]:
    """Gather configurations that differ in the learning rate alone, wherever there are three or more of them."""
    groups: dict[tuple[str, str], list[Configuration]] = defaultdict(list)
    for one in configurations:
        groups[one.family, one.first.setting_with(learning_rate=None)].append(one)
    swept = [tuple(sorted(members, key=_rate)) for members in groups.values() if len(members) > 2]
    dense = [Sweep(members) for members in reversed(swept) if members[0].dense]
    return [Sweep(one, next((its for its in dense if its.best.trained_like(one[0])), None)) for one in swept]


def _rate(one: Configuration) -> float:
    return one.recipe.learning_rate or 0
