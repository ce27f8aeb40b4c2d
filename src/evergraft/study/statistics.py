"""Means over seeds, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

CONFIDENCE = 0.95
INTERVAL = "95 % intervals are Student's t over seeds"


@dataclass(frozen=True)
class Estimate:
    """A mean and its confidence interval.

    Attributes:
        mean: the arithmetic mean over the seeds, or the geometric one of ratios.
        low, high: the ends of the 95 % interval; None for a single seed.
        seeds: how many seeds there are.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: int

    def __str__(self) -> str:
        return self.text()

    def text(self, digits: int = 3) -> str:
        """The mean and its interval, with this many digits after the point.

        It reads `2.345 ± 0.012`, or `0.51 (0.48 to 0.55)` if the interval is not symmetric, as that of a ratio.
        """
        if self.low is None or self.high is None:
            return f"{self.mean:.{digits}f}"
        half = (self.high - self.low) / 2
        if math.isclose(self.mean - self.low, half, rel_tol=1e-6, abs_tol=1e-12):
            return f"{self.mean:.{digits}f} ± {half:.{digits}f}"
        return f"{self.mean:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def t_interval(values: Sequence[float]) -> Estimate:
    """The mean of values, with Student's t interval at 95 % (n - 1 degrees of freedom); one value has no interval."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return Estimate(mean, None, None, count)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * np.std(values, ddof=1) / math.sqrt(count))
    return Estimate(mean, mean - half, mean + half, count)


def log_t_interval(values: Sequence[float]) -> Estimate:
    """The geometric mean of positive values, with the t interval of their logarithms."""
    logs = t_interval([math.log(value) for value in values])
    ends = [None if end is None else math.exp(end) for end in (logs.low, logs.high)]
    return Estimate(math.exp(logs.mean), ends[0], ends[1], logs.seeds)


def paired_difference(first: Mapping[int, float], second: Mapping[int, float]) -> Estimate | None:
    """The mean of second - first over the seeds both have, with its t interval; None if they share no seed.

    Seeds are paired because runs of one seed see the same text under the same masks in the same order.
    """
    shared = sorted(first.keys() & second.keys())
    return t_interval([second[seed] - first[seed] for seed in shared]) if shared else None


def verdict(difference: Estimate | None, wanted: Callable[[float], bool]) -> str:
    """Whether a difference is as wanted, in words.

    Args:
        difference: None gives `-`.
        wanted: whether a mean is as wanted.

    Returns:
        `yes` or `no`, followed by `, within noise` if the interval holds zero, or by ` (one seed)`.
    """
    if difference is None:
        return "-"
    said = "yes" if wanted(difference.mean) else "no"
    if difference.low is None or difference.high is None:
        return f"{said} (one seed)"
    return f"{said}, within noise" if difference.low <= 0 <= difference.high else said
