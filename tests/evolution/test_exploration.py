"""Explored degrees of freedom and churn against sets of positions."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from evergraft import BlockTopology
from evergraft.evolution.exploration import Exploration
from tests.evolution.rules import grow


@given(st.integers(0, 999))
def test_exploration_against_sets(seed):
    rng = np.random.default_rng(seed)
    topology = BlockTopology.random(5, 9, (1, 1), 0.3, rng)
    history, seen, newest = Exploration(topology), set(topology.positions.tolist()), set()
    all_grown = all_removed = 0
    for _ in range(4):
        count = int(rng.integers(0, 6))
        slots = torch.from_numpy(rng.permutation(topology.active)[:count])
        pruned, grown = topology.positions[slots], grow(topology, count, rng)
        topology, _ = topology.replace(slots, grown)
        assert history.record(pruned, grown) == (len(newest), len(newest & set(pruned.tolist())))
        all_grown += len(newest)
        all_removed += len(newest & set(pruned.tolist()))
        newest = set(grown.tolist())
        seen |= newest
    assert history.explored == len(seen) / 45
    assert (history.grown, history.removed_new) == (all_grown, all_removed)
