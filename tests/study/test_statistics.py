"""Intervals against textbook figures."""

from __future__ import annotations

import math

import pytest

from evergraft.study.statistics import log_t_interval, paired_difference, t_interval


def test_t_interval():
    estimate = t_interval([1.0, 2.0, 3.0])
    assert estimate.mean == pytest.approx(2)
    assert estimate.high - estimate.mean == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)  # t at 2 degrees, 0.975
    assert str(estimate) == "2.000 ± 2.484"


def test_one_seed_has_no_interval():
    estimate = t_interval([1.5])
    assert (estimate.low, estimate.high, estimate.seeds) == (None, None, 1)
    assert str(estimate) == "1.500"


def test_log_interval_is_of_ratios():
    estimate = log_t_interval([0.5, 2.0])
    assert estimate.mean == pytest.approx(1)
    assert estimate.low * estimate.high == pytest.approx(1)
    assert "to" in log_t_interval([0.4, 0.5, 0.7]).text(2)


def test_differences_are_paired_by_seed():
    difference = paired_difference({1: 1.0, 2: 5.0, 3: 9.0}, {1: 1.5, 2: 5.5, 4: 0.0})
    assert difference.mean == pytest.approx(0.5)
    assert difference.high == pytest.approx(0.5)
    assert paired_difference({1: 1.0}, {2: 1.0}) is None
