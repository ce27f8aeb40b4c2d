"""Topologies against dense masks."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evergraft import BlockTopology, EvergraftError
from evergraft.sparse.grid import active_count, block_grid

BLOCKS = [(1, 1), (4, 4), (8, 8), (16, 16), (32, 32), (64, 64), (16, 1), (1, 16), (8, 2), (3, 5)]
Grids = st.tuples(st.integers(1, 9), st.integers(1, 9))
Densities = st.floats(0.01, 1.0)
Seeds = st.integers(0, 2**32 - 1)


def random_topology(sizes: tuple[int, int], block: tuple[int, int], density: float, seed: int) -> BlockTopology:
    return BlockTopology.random(sizes[0] * block[0], sizes[1] * block[1], block, density, np.random.default_rng(seed))


@given(Grids, st.sampled_from(BLOCKS), Densities, Seeds)
def test_random_has_exactly_the_count_and_is_valid(sizes, block, density, seed):
    topology = random_topology(sizes, block, density, seed)
    blocks = sizes[0] * sizes[1]
    assert topology.active == max(1, round(density * blocks)) == active_count(blocks, density)
    assert topology.blocks == blocks
    assert topology.density == topology.active / blocks
    assert (topology.out_features, topology.in_features) == (sizes[0] * block[0], sizes[1] * block[1])
    topology.validate()


@given(Grids, st.sampled_from(BLOCKS), Densities, Seeds)
def test_indices_describe_the_dense_mask(sizes, block, density, seed):
    topology = random_topology(sizes, block, density, seed)
    mask = topology.mask()
    assert mask.sum() == topology.active * block[0] * block[1]
    small = mask[:: block[0], :: block[1]]
    rows, columns = small.nonzero(as_tuple=True)  # row-major, as slots are
    assert torch.equal(topology.rows, rows)
    assert torch.equal(topology.columns.long(), columns)
    assert torch.equal(topology.row_offsets.diff().long(), small.sum(1))
    assert torch.equal(topology.transposed_offsets.diff().long(), small.sum(0))
    transposed_columns, transposed_rows = small.t().nonzero(as_tuple=True)
    order = topology.transposed_order.long()
    assert torch.equal(topology.columns[order].long(), transposed_columns)
    assert torch.equal(topology.rows[order], transposed_rows)
    assert all(tensor.dtype == torch.int32 for tensor in topology.tensors())


@given(Grids, st.sampled_from(BLOCKS), Densities, Seeds)
def test_mask_round_trip(sizes, block, density, seed):
    topology = random_topology(sizes, block, density, seed)
    again = BlockTopology.from_mask(topology.mask(), block)
    assert all(torch.equal(a, b) for a, b in zip(topology.tensors(), again.tensors(), strict=True))


@given(Grids, st.sampled_from(BLOCKS), st.floats(0.1, 0.9), Seeds, st.data())
def test_replace_exchanges_what_it_is_told(sizes, block, density, seed, data):
    topology = random_topology(sizes, block, density, seed)
    inactive = sorted(set(range(topology.blocks)) - set(topology.positions.tolist()))
    count = data.draw(st.integers(0, min(topology.active, len(inactive))))
    slots = data.draw(st.permutations(range(topology.active)))[:count]
    grown = data.draw(st.permutations(inactive))[:count] if inactive else []
    pruned = topology.positions[torch.tensor(slots, dtype=torch.int64)].tolist()
    new, sources = topology.replace(torch.tensor(slots, dtype=torch.int64), torch.tensor(grown, dtype=torch.int64))
    new.validate()
    assert set(new.positions.tolist()) == set(topology.positions.tolist()) - set(pruned) | set(grown)
    for slot, source in enumerate(sources.tolist()):
        position = int(new.positions[slot])
        assert (source == -1) == (position in grown)
        assert source == -1 or int(topology.positions[source]) == position


def test_random_is_uniform():
    """Chi-square of how often each of 24 positions is active in 4000 draws of 6."""
    rng = np.random.default_rng(0)
    draws = [BlockTopology.random(4, 6, (1, 1), 0.25, rng).positions.numpy() for _ in range(4000)]
    counts = np.bincount(np.concatenate(draws), minlength=24)
    expected = 4000 * 6 / 24
    assert ((counts - expected) ** 2 / expected).sum() < 49.7  # 23 degrees of freedom, p = 0.001


def test_immutable():
    topology = random_topology((3, 4), (4, 4), 0.5, 0)
    with pytest.raises(FrozenInstanceError):
        topology.columns = topology.columns
    copy = topology.clone()
    copy.columns[0] += 1
    topology.validate()


@pytest.mark.parametrize(
    ("sizes", "block", "density", "says"),
    [
        ((0, 4), (1, 1), 0.5, "at least 1"),
        ((4, 4), (0, 1), 0.5, "at least 1"),
        ((6, 4), (4, 4), 0.5, "does not divide a weight of 6 x 4"),
        ((4, 6), (4, 4), 0.5, "does not divide a weight of 4 x 6"),
        ((4, 4), (1, 1), 0.0, "density must be above 0 and at most 1"),
        ((4, 4), (1, 1), 1.5, "density must be above 0 and at most 1"),
        ((4, 4), (1, 1), float("nan"), "density must be above 0 and at most 1"),
    ],
)
def test_random_refuses(sizes, block, density, says):
    with pytest.raises(EvergraftError, match=says):
        BlockTopology.random(*sizes, block, density, np.random.default_rng(0))


def test_too_many_blocks_for_int32():
    with pytest.raises(EvergraftError, match=r"at most 2\^31 - 1 blocks"):
        block_grid(65536, 65536, (1, 1))


@pytest.mark.parametrize(
    ("positions", "says"),
    [([], "at least one active block"), ([0, 0], "differ"), ([-1, 2], "must lie in"), ([0, 16], "must lie in")],
)
def test_positions_refused(positions, says):
    with pytest.raises(EvergraftError, match=says):
        BlockTopology.from_positions(8, 8, (2, 2), torch.tensor(positions, dtype=torch.int64))


def test_partial_block_in_mask_refused():
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[0, 0] = True
    with pytest.raises(EvergraftError, match="partly active"):
        BlockTopology.from_mask(mask, (2, 2))


def test_replace_refuses_active_positions_and_may_change_the_count():
    topology = random_topology((3, 3), (1, 1), 0.5, 0)
    one = torch.tensor([0])
    with pytest.raises(EvergraftError, match="inactive before"):
        topology.replace(one, topology.positions[:1])
    fewer, sources = topology.replace(one, torch.tensor([], dtype=torch.int64))
    fewer.validate()
    assert fewer.active == topology.active - 1 == len(sources)


@pytest.mark.parametrize("field", ["row_offsets", "columns", "transposed_offsets", "transposed_order"])
@given(seed=Seeds, data=st.data())
def test_validate_accepts_nothing_a_constructor_would_not_make(field, seed, data):
    topology = random_topology((5, 6), (2, 3), 0.4, seed)
    tensor = getattr(topology, field).clone()
    index = data.draw(st.integers(0, len(tensor) - 1))
    tensor[index] += data.draw(st.sampled_from([-1000, -7, -1, 1, 2, 1000]))
    tampered = replace(topology, **{field: tensor})
    try:
        tampered.validate()
    except EvergraftError:
        return
    assert field == "row_offsets"  # moving a row's border can give another topology that is as good
    again = BlockTopology.from_mask(tampered.mask(), tampered.block)
    assert all(torch.equal(a, b) for a, b in zip(tampered.tensors(), again.tensors(), strict=True))


def test_validate_refuses_other_types():
    topology = random_topology((3, 3), (1, 1), 0.5, 0)
    with pytest.raises(EvergraftError, match="int32"):
        replace(topology, columns=topology.columns.long()).validate()
