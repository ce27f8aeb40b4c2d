"""Growth at random is distinct, inactive, uniform; balanced growth levels rows and columns."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from evergraft import BlockTopology, TopologyUpdater, sparsify
from evergraft.evolution.context import UpdateContext
from evergraft.evolution.growth import GROWTH_RULES
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


def balanced(topology, pruned, count, seed=0):
    """The positions that grow by the rule `balanced` where these are pruned."""
    values = torch.zeros(topology.active, *topology.block)
    return GROWTH_RULES.get("balanced")(
        UpdateContext("layer", topology, values, count, np.random.default_rng(seed), topology.positions[pruned])
    )


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0.05, 0.95), st.integers(0, 99), st.data())
def test_balanced_growth_picks_distinct_inactive_positions(rows, columns, density, seed, data):
    topology = BlockTopology.random(rows, columns, (1, 1), density, np.random.default_rng(seed))
    count = data.draw(st.integers(0, min(topology.active, topology.blocks - topology.active)))
    grown = balanced(topology, torch.arange(count), count, seed)
    topology.check_inactive(grown)
    assert len(grown) == count


def test_balanced_growth_feeds_and_reads_dead_units_first():
    topology = BlockTopology.from_positions(4, 6, (1, 1), torch.tensor([0, 1, 2, 6, 7, 8]))  # rows 0, 1; columns 0 to 2
    grown = balanced(topology, torch.tensor([0, 1, 2]), 3)
    after, _ = topology.replace(torch.tensor([0, 1, 2]), grown)
    assert (after.unread_columns, after.empty_rows) == (0, 0)


def test_balanced_topologies_stay_balanced_through_updates():
    net = nn.Sequential(nn.Linear(128, 128))
    sparsify(net, density=0.25, block=(16, 1), include="*", placement="balanced")
    optimizer = torch.optim.AdamW(net.parameters())
    updater = TopologyUpdater(net, optimizer, total_steps=100, updates=10, grow_by="balanced")
    for _ in range(10):
        net(torch.randn(8, 128)).square().mean().backward()
        optimizer.step()
        updater.update(0.5)
        assert net[0].topology.unread_columns == 0
        held = net[0].topology.row_offsets.diff()
        assert held.max() - held.min() <= 1
