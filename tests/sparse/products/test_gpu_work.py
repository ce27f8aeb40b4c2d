"""The index work done on the device: equal items, and the block row of each slot."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evergraft import BlockTopology
from tests.sparse.products.gpu_kernels import DEVICE

pytestmark = pytest.mark.usefixtures("gpu_backend")


def grouping_of(sizes):
    """Groups of the given numbers of 1x1 blocks."""
    from evergraft.sparse.products.gpu.grouping import Grouping

    offsets = torch.tensor([0, *np.cumsum(sizes)], dtype=torch.int32, device=DEVICE)
    across = torch.zeros(sum(sizes), dtype=torch.int32, device=DEVICE)
    return Grouping(offsets, across, None, 1, 1, 1, 1, widest=max(sizes) + 1)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=40), st.integers(1, 12))
def test_items_hold_every_place_once_and_no_more_than_the_limit(sizes, limit):
    from evergraft.sparse.products.gpu.work import divide

    grouping = grouping_of(sizes)
    work = divide(grouping, limit)
    if work.items is None:
        assert (limit > max(sizes), work.item_count, work.partial_count) == (True, len(sizes), 0)
        return
    items = [(group, first) for group, first in work.items.t().tolist() if group >= 0]
    offsets = grouping.offsets.tolist()
    places = [place for group, first in items for place in range(first, min(first + limit, offsets[group + 1]))]
    assert sorted(places) == list(range(sum(sizes)))
    assert {group for group, _ in items} == set(range(len(sizes)))  # the empty ones too: they have outputs
    split = [(group, first, count) for group, first, count in work.splits.t().tolist() if group >= 0]
    assert [group for group, _, _ in split] == [g for g, size in enumerate(sizes) if size > limit]
    assert sum(count for _, _, count in split) <= work.partial_count
    for group, first, count in split:
        assert [items[first + part] for part in range(count)] == [
            (group, offsets[group] + part * limit) for part in range(count)
        ]


def test_more_groups_than_one_pass_holds():
    from evergraft.sparse.products.gpu.work import PLAN_BLOCK, divide

    sizes = [3 if group % 700 == 5 else 1 for group in range(2 * PLAN_BLOCK + 10)]
    work = divide(grouping_of(sizes), 2)
    assert work.splits.t()[:3].tolist() == [[5, 0, 2], [705, 2, 2], [1405, 4, 2]]
    assert work.items[0][:7].tolist() == [5, 5, 705, 705, 1405, 1405, 0]
    assert int(work.items[0].max()) == len(sizes) - 1


@settings(max_examples=20)
@given(st.integers(1, 70), st.integers(1, 9), st.floats(0.01, 1), st.integers(0, 100))
def test_rows_of_the_transposed_order(rows, columns, density, seed):
    from evergraft.sparse.products.gpu.grouping import by_columns

    topology = BlockTopology.random(rows, columns, (1, 1), density, np.random.default_rng(seed))
    topology = BlockTopology((1, 1), *(tensor.to(DEVICE) for tensor in topology.tensors()))
    expected = topology.rows[topology.transposed_order.long()]
    assert torch.equal(by_columns(topology).across.long(), expected)
