"""Loss against cost: Pareto fronts, the dense family, and what a sparse model costs at equal loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean

from evergraft.study.collection import Configuration, Number
from evergraft.study.statistics import Estimate, log_t_interval


@dataclass(frozen=True)
class Cost:
    """One of the costs of training.

    Attributes:
        name: `FLOPs`, `wall-clock` or `memory`.
        title: the name with its unit, for an axis.
        of: the function that gives the cost of a run.
    """

    name: str
    title: str
    of: Number


FLOPS = Cost("FLOPs", "FLOPs", lambda record: record.result.flops_total)
SECONDS = Cost("wall-clock", "seconds of training", lambda record: record.steady_seconds)
BYTES = Cost("memory", "bytes of the encoder's linear layers in training", lambda record: record.result.bytes.total)
COSTS = (FLOPS, SECONDS, BYTES)

Point = tuple[float, float]  # cost, loss
BySeed = Mapping[int, float]


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
    ends = front(points)
    for (cheap, high), (dear, low) in pairwise(ends):
        if low <= loss <= high:
            share = math.log(high / loss) / math.log(high / low)
            return float(cheap * (dear / cheap) ** share)
    return None


@dataclass(frozen=True)
class EqualLoss:
    """What a sparse configuration costs against the dense family at the same loss.

    Attributes:
        configuration: the sparse one.
        ratios: for each of COSTS, sparse cost / dense cost; below 1 is a win. None where a shared seed's loss lies
            outside the range of losses that the dense family of that seed spans.
    """

    configuration: Configuration
    ratios: dict[Cost, Estimate | None]

    @property
    def critical_cost(self) -> float | None:
        """How much slower than dense a sparse FLOP may run before the wall-clock win is lost: 1 / the FLOP ratio."""
        ratio = self.ratios[FLOPS]
        return 1 / ratio.mean if ratio else None


def equal_loss(configurations: Sequence[Configuration]) -> list[EqualLoss]:
    """Cost ratios at equal loss of each sparse configuration, against the dense ones among them.

    The dense family of a configuration is made of models of different sizes that were trained under the same
    conditions; of each size it has the one with the lowest loss. Where there are not two sizes, the configuration is
    left out. Each seed is compared with the family of the same seed; a ratio is the geometric mean over the seeds that
    all of them share, with the t interval of the logarithms.
    """
    dense = [one for one in configurations if one.dense]
    compared = []
    for one in configurations:
        family = [] if one.dense else _family(one, dense)
        if len(family) > 1:
            compared.append(EqualLoss(one, {cost: _ratio(family, one, cost) for cost in COSTS}))
    return compared


def ratio_at_equal_loss(costs: BySeed, losses: BySeed, dense: Sequence[tuple[BySeed, BySeed]]) -> Estimate | None:
    """What one configuration costs over a dense family at the same loss.

    Args:
        costs, losses: those of the configuration, by seed, above 0.
        dense: (costs, losses) of each member of the family; some seed is common to all of them and the configuration.

    Returns:
        The geometric mean over the seeds that all have, each compared with the family of the same seed; None where the
        loss of such a seed lies outside the range that its family spans.
    """
    ratios: list[float] = []
    for seed in sorted(set(losses).intersection(*(its_losses for _, its_losses in dense))):
        equal = cost_at(losses[seed], [(its_costs[seed], its_losses[seed]) for its_costs, its_losses in dense])
        if equal is None:
            return None
        ratios.append(costs[seed] / equal)
    return log_t_interval(ratios)


def _family(sparse: Configuration, dense: Sequence[Configuration]) -> list[Configuration]:
    """The dense models that a sparse one is compared with.

    Of each size it is the one that shares the most seeds with the sparse model, and of several such that of the lowest
    loss over these seeds. There is none where no seed is common to all.
    """
    seeds = set(sparse.losses)

    def rank(member: Configuration) -> tuple[int, float]:
        shared = [loss for seed, loss in member.losses.items() if seed in seeds]
        return -len(shared), mean(shared)

    alike = [one for one in dense if one.conditions == sparse.conditions and seeds & one.losses.keys()]
    best = {member.size: member for member in sorted(alike, key=rank, reverse=True)}
    family = list(best.values())
    return family if seeds.intersection(*(member.losses for member in family)) else []


def _ratio(dense: Sequence[Configuration], sparse: Configuration, cost: Cost) -> Estimate | None:
    family = [(member.by_seed(cost.of), member.losses) for member in dense]
    return ratio_at_equal_loss(sparse.by_seed(cost.of), sparse.losses, family)
