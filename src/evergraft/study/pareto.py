"""Loss against cost: Pareto fronts, the dense family, and sparse models beside it at equal loss and at equal cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import mean
from typing import Any

from evergraft.study.collection import Configuration
from evergraft.study.record import RunRecord
from evergraft.study.statistics import Estimate, log_t_interval, t_interval
from evergraft.study.step_times import FASTEST, StepTimes


@dataclass(frozen=True)
class Cost:
    """One of the costs of training.

    Attributes:
        name: `FLOPs`, `wall-clock` or `memory`; or the dense rival whose timed steps a dense run is charged with.
        title: the name with its unit, for an axis.
        of: the function that gives the cost of a run; None where that is not known.
    """

    name: str
    title: str
    of: Callable[[RunRecord], float | None]

    def by_seed(self, configuration: Configuration) -> BySeed | None:
        """The costs of a configuration's runs, by seed; None unless all of them are known."""
        found = {record.recipe.seed: self.of(record) for record in configuration.records}
        known = {seed: cost for seed, cost in found.items() if cost is not None}
        return known if len(known) == len(found) else None


Point = tuple[float, float]  # cost, loss
BySeed = Mapping[int, float]
Family = Sequence[tuple[BySeed, BySeed]]  # costs and losses of each member
Comparison = Callable[[BySeed, BySeed, Family], Estimate | None]

FLOPS = Cost("FLOPs", "FLOPs", lambda record: record.result.flops_total)
SECONDS = Cost("wall-clock", "seconds of training", lambda record: record.steady_seconds)
BYTES = Cost("memory", "bytes of the encoder's linear layers in training", lambda record: record.result.bytes.total)
COSTS = (FLOPS, SECONDS, BYTES)


def timed_costs(times: StepTimes | None) -> tuple[Cost, ...]:
    """Seconds of training by steps that were timed alone: a cost for each dense rival, and one for the fastest."""
    if times is None:
        return ()
    several = (FASTEST,) if len(times.rivals) > 1 else ()
    return tuple(
        Cost(rival, f"seconds of training, by timed steps; dense: {rival}", partial(times.seconds, rival=rival))
        for rival in (*times.rivals, *several)
    )


def front(points: Sequence[Point]) -> list[Point]:
    """The Pareto front: the points that no other beats in both cost and loss, by rising cost and falling loss."""
    kept: list[Point] = []
    for cost, loss in sorted(points):
        if not kept or loss < kept[-1][1]:
            kept.append((cost, loss))
    return kept


def cost_at(loss: float, points: Sequence[Point]) -> float | None:
    """The cost at which a family reaches a loss, by log-log interpolation along its Pareto front.

    Between neighbours of the front, log cost is linear in log loss (docs/method.md, section 4).

    Args:
        loss: nats, above 0.
        points: (cost, loss) of the family's members, all above 0.

    Returns:
        The cost; None outside the range of losses that the family spans: nothing is extrapolated.
    """
    for (cheap, high), (dear, low) in pairwise(front(points)):
        if low <= loss <= high:
            share = math.log(high / loss) / math.log(high / low)
            return float(cheap * (dear / cheap) ** share)
    return None


def loss_at(cost: float, points: Sequence[Point]) -> float | None:
    """The loss that a family reaches at a cost: the inverse of `cost_at`, by the same interpolation.

    Args:
        cost: above 0.
        points: (cost, loss) of the family's members, all above 0.

    Returns:
        Nats; None outside the range of costs that the family's Pareto front spans: nothing is extrapolated.
    """
    for (cheap, high), (dear, low) in pairwise(front(points)):
        if cheap <= cost <= dear:
            share = math.log(cost / cheap) / math.log(dear / cheap)
            return float(high * (low / high) ** share)
    return None


@dataclass(frozen=True)
class Against:
    """A sparse configuration beside its dense family.

    Attributes:
        configuration: the sparse one.
        family: dense models of different sizes, or lengths of training.
    """

    configuration: Configuration
    family: tuple[Configuration, ...]

    def ratio(self, cost: Cost) -> Estimate | None:
        """Sparse cost over dense cost at the same loss; below 1 is a win.

        Each seed is compared with the family of the same seed: the geometric mean over the seeds that all of them
        share, with the t interval of the logarithms.

        Returns:
            None where the loss of such a seed lies outside the range that its family spans, or costs are not known.
        """
        return self._over_seeds(cost, ratio_at_equal_loss)

    def difference(self, cost: Cost) -> Estimate | None:
        """Sparse loss minus dense loss at the same cost, nats; below 0 is a win.

        Returns:
            The mean over the seeds that all share, with its t interval; None where the cost of such a seed lies outside
            the range that its family spans, or costs are not known.
        """
        return self._over_seeds(cost, difference_at_equal_cost)

    def is_known(self, cost: Cost) -> bool:
        """Whether the cost is known of the configuration and of two of its family at least."""
        return self._costs(cost) is not None

    @property
    def critical_cost(self) -> float | None:
        """How much slower than dense a sparse FLOP may run before the wall-clock win is lost: 1 / the FLOP ratio."""
        ratio = self.ratio(FLOPS)
        return 1 / ratio.mean if ratio else None

    def _over_seeds(self, cost: Cost, compare: Comparison) -> Estimate | None:
        known = self._costs(cost)
        return None if known is None else compare(known[0], self.configuration.losses, known[1])

    def _costs(self, cost: Cost) -> tuple[BySeed, Family] | None:
        """The configuration's costs, and costs and losses of those of its family whose costs are known."""
        ours = cost.by_seed(self.configuration)
        dense: Family = [(its, member.losses) for member in self.family if (its := cost.by_seed(member))]
        return None if ours is None or len(dense) < 2 else (ours, dense)


def against_dense(configurations: Sequence[Configuration], free_steps: bool = False) -> list[Against]:
    """Each sparse configuration beside the dense ones that were trained under the same conditions.

    Of several dense models of one size it takes the one with the lowest loss. A configuration is left out where there
    are not two of them, or no seed is common to all.

    Args:
        configurations: sparse and dense ones.
        free_steps: whether dense models may have been trained for any number of steps; of each size and number of steps
            the one with the lowest loss then counts.
    """
    dense = [one for one in configurations if one.dense]
    compared = [Against(one, _family(one, dense, free_steps)) for one in configurations if not one.dense]
    return [one for one in compared if len(one.family) > 1]


def ratio_at_equal_loss(costs: BySeed, losses: BySeed, dense: Family) -> Estimate | None:
    """What one configuration costs over a dense family at the same loss.

    Args:
        costs, losses: those of the configuration, by seed, above 0.
        dense: (costs, losses) of each member of the family; some seed is common to all of them and the configuration.

    Returns:
        The geometric mean over the seeds that all have, each compared with the family of the same seed; None where the
        loss of such a seed lies outside the range that its family spans.
    """
    ratios: list[float] = []
    for seed in _shared(losses, dense):
        equal = cost_at(losses[seed], _points(dense, seed))
        if equal is None:
            return None
        ratios.append(costs[seed] / equal)
    return log_t_interval(ratios)


def difference_at_equal_cost(costs: BySeed, losses: BySeed, dense: Family) -> Estimate | None:
    """How much higher a configuration's loss is than that of a dense family at the same cost.

    Args:
        costs, losses, dense: as `ratio_at_equal_loss` takes them.

    Returns:
        The mean over the seeds that all have, nats; None where the cost of such a seed lies outside the range that its
        family's Pareto front spans.
    """
    differences: list[float] = []
    for seed in _shared(losses, dense):
        equal = loss_at(costs[seed], _points(dense, seed))
        if equal is None:
            return None
        differences.append(losses[seed] - equal)
    return t_interval(differences)


def _shared(losses: BySeed, dense: Family) -> list[int]:
    return sorted(set(losses).intersection(*(its_losses for _, its_losses in dense)))


def _points(dense: Family, seed: int) -> list[Point]:
    return [(costs[seed], losses[seed]) for costs, losses in dense]


def _family(sparse: Configuration, dense: Sequence[Configuration], free_steps: bool) -> tuple[Configuration, ...]:
    """The dense models that a sparse one is compared with.

    Of each size it is the one that shares the most seeds with the sparse model, and of several such that of the lowest
    loss over these seeds. There is none where no seed is common to all.
    """
    seeds = set(sparse.losses)
    free = {"steps"} if free_steps else set()

    def kept(conditions: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in conditions.items() if name not in free}

    def rank(member: Configuration) -> tuple[int, float]:
        shared = [loss for seed, loss in member.losses.items() if seed in seeds]
        return -len(shared), mean(shared)

    wanted = kept(sparse.conditions)
    alike = [one for one in dense if kept(one.conditions) == wanted and seeds & one.losses.keys()]
    ranked = sorted(alike, key=rank, reverse=True)
    best = {(member.size, member.conditions["steps"]): member for member in ranked}
    family = tuple(best.values())
    return family if seeds.intersection(*(member.losses for member in family)) else ()
