"""Where first blocks lie: exact counts, balanced rows and columns, and the draws of earlier versions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from evergraft import BlockTopology, EvergraftError, SparsityConfig, sparsify
from evergraft.sparse.balance import shared_out
from evergraft.sparse.placement import PLACEMENTS


def rng(seed=0):
    return np.random.default_rng(seed)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(0, 99), st.integers(0, 99))
def test_sharing_out_levels_loads(loads, count, seed):
    """No one who gets some ends more than one above anyone."""
    before = np.array(loads)
    gets = shared_out(before, count, rng(seed))
    after = before + gets
    assert gets.sum() == count
    assert (gets >= 0).all()
    assert not gets.any() or after[gets > 0].max() - after.min() <= 1


@given(st.integers(1, 14), st.integers(1, 14), st.floats(0, 1), st.integers(0, 99))
def test_balanced_rows_and_columns(rows, columns, share, seed):
    count = max(1, round(share * rows * columns))
    positions = PLACEMENTS.get("balanced")(rows, columns, count, rng(seed))
    assert len(set(positions.tolist())) == len(positions) == count
    for held in (
        np.bincount(positions // columns, minlength=rows),
        np.bincount(positions % columns, minlength=columns),
    ):
        assert held.max() - held.min() <= 1


def test_columns_are_balanced_where_rows_have_counts_of_their_own():
    positions = PLACEMENTS.get("balanced")(3, 4, [4, 1, 1], rng())
    assert np.bincount(positions // 4).tolist() == [4, 1, 1]
    assert sorted(np.bincount(positions % 4).tolist()) == [1, 1, 2, 2]


def test_a_balanced_layer_leaves_nothing_unread_if_it_need_not():
    random = BlockTopology.random_count(128, 128, (16, 1), 128, rng())
    balanced = BlockTopology.random_count(128, 128, (16, 1), 128, rng(), "balanced")
    assert random.unread_columns > 30
    assert (balanced.unread_columns, balanced.empty_rows) == (0, 0)


def test_dead_units_are_counted_in_features():
    topology = BlockTopology.from_positions(8, 8, (4, 2), torch.tensor([1, 3]))
    assert (topology.empty_rows, topology.unread_columns) == (4, 4)


def test_sparsify_places_by_name():
    net = nn.Sequential(nn.Linear(128, 128))
    sparsify(net, SparsityConfig(density=0.125, block=(16, 1), include="*", placement="balanced"))
    assert net[0].topology.unread_columns == 0


def test_a_rule_that_places_another_number_is_refused():
    PLACEMENTS.register("few")(lambda rows, columns, count, rng: np.arange(1))
    try:
        with pytest.raises(EvergraftError, match="placement 'few': 1 blocks were placed, expected 5"):
            BlockTopology.random_count(8, 8, (1, 1), 5, rng(), "few")
    finally:
        PLACEMENTS.unregister("few")
