"""When updates fall due, and what share of the blocks each prunes, against the paper's formulas."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergraft import EvolutionConfig
from evergraft.evolution.schedule import UpdateSchedule


def schedule_of(**settings) -> UpdateSchedule:
    return UpdateSchedule(EvolutionConfig(**settings))


@given(st.integers(1, 200), st.integers(2, 20))
def test_all_updates_fall_due_evenly_spaced_and_none_at_the_ends(updates, spacing):
    steps = updates * spacing
    schedule = schedule_of(updates=updates)
    due = [schedule.due(step / steps) for step in range(steps + 1)]
    when = [step for step in range(1, steps + 1) if due[step] > due[step - 1]]
    assert due[0] == 0
    assert due[-1] == updates
    assert len(when) == updates
    assert when[-1] < steps
    assert {b - a for a, b in pairwise(when)} <= {spacing}


def test_static_is_never_due():
    assert schedule_of(updates=0).due(1.0) == 0


def test_ratios_are_those_of_the_paper():
    cosine = schedule_of(updates=10)
    assert [cosine.ratio(p) for p in (0, 0.5, 1)] == pytest.approx([0.5, 0.25, 0])
    assert cosine.ratio(0.25) == pytest.approx(0.25 * (1 + math.cos(math.pi / 4)))
    assert [schedule_of(updates=10, prune_decay="linear").ratio(p) for p in (0, 0.5, 1)] == pytest.approx(
        [0.5, 0.25, 0]
    )
    assert schedule_of(updates=10, prune_decay="constant").ratio(1) == 0.5


def test_updates_rest_after_their_share_of_training():
    whole, half = schedule_of(updates=10), schedule_of(updates=10, update_until=0.5)
    assert [half.due(p) for p in (0, 0.25, 0.5, 1)] == [whole.due(p) for p in (0, 0.5, 1, 1)]
    assert half.ratio(0.25) == whole.ratio(0.5)
    assert half.ratio(0.75) == pytest.approx(0)
