"""Random growth: distinct, inactive, uniform."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from evergraft import BlockTopology
from tests.evolution.rules import grow


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0.05, 0.95), st.integers(0, 999), st.data())
def test_grow_picks_distinct_inactive_positions(rows, columns, density, seed, data):
    topology = BlockTopology.random(rows, columns, (1, 1), density, np.random.default_rng(seed))
    inactive = set(range(rows * columns)) - set(topology.positions.tolist())
    count = data.draw(st.integers(0, len(inactive)))
    grown = grow(topology, count, np.random.default_rng(seed)).tolist()
    assert len(set(grown)) == count
    assert set(grown) <= inactive


def test_growth_is_uniform():
    """Chi-square of how often each of 30 inactive positions grows in 4000 draws of 5."""
    topology = BlockTopology.random(6, 10, (1, 1), 0.5, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    drawn = np.concatenate([grow(topology, 5, rng).numpy() for _ in range(4000)])
    counts = np.bincount(drawn, minlength=60)
    counts = counts[[p for p in range(60) if p not in set(topology.positions.tolist())]]
    expected = 4000 * 5 / 30
    assert ((counts - expected) ** 2 / expected).sum() < 58.3  # 29 degrees of freedom, p = 0.001
