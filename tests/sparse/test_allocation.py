"""How blocks are shared out: exact counts, by layer and by row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from evergraft import EvergraftError, SparsityConfig, sparsify
from evergraft.sparse.allocate import allocate
from evergraft.sparse.allocation import ALLOCATIONS, total


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([(1, 1), (4, 2), (2, 8)]), st.floats(0.01, 1))
def test_uniform_is_the_density_of_every_layer(rows, columns, block, density):
    shapes = {"a": (rows * block[0], columns * block[1]), "b": (block[0], block[1])}
    counts = allocate(shapes, SparsityConfig(density=density, block=block))
    assert counts == {"a": max(1, round(density * rows * columns)), "b": 1}


@pytest.fixture
def by_row():
    ALLOCATIONS.register("by-row")(lambda layers: {name: [2] * grid.rows for name, grid in layers.items()})
    yield "by-row"
    ALLOCATIONS.unregister("by-row")


def test_counts_by_row_make_rows_of_equal_count(by_row):
    net = nn.Sequential(nn.Linear(16, 32), nn.Linear(32, 16))
    report = sparsify(net, SparsityConfig(block=(4, 2), include="*", allocation=by_row))
    for layer in net:
        layer.topology.validate()
        assert layer.row_offsets.diff().eq(2).all()
    assert report.active == sum(layer.values.numel() for layer in net) == 2 * (8 + 4) * 8


def test_density_by_layer():
    net = nn.Sequential(nn.Linear(16, 32), nn.Linear(32, 16))
    sparsify(net, 0.25, (4, 2), include="*", overrides={"1": "0.5,16x1"})
    assert (net[0].topology.density, net[0].block) == (0.25, (4, 2))
    assert (net[1].topology.density, net[1].block) == (0.5, (16, 1))


@pytest.mark.parametrize("counts", [0, 65, [2, 2], [9] + [0] * 7, [0] * 8])
def test_counts_that_do_not_fit_are_refused(counts):
    ALLOCATIONS.register("odd")(lambda layers: dict.fromkeys(layers, counts))
    try:
        net = nn.Sequential(nn.Linear(16, 32))
        with pytest.raises(EvergraftError, match=r"allocation 'odd' gives layer 0 .* blocks, of 8 x 8 positions"):
            sparsify(net, SparsityConfig(block=(4, 2), include="*", allocation="odd"))
        assert type(net[0]) is nn.Linear
    finally:
        ALLOCATIONS.unregister("odd")


def test_total():
    assert total(7) == 7 == total([3, 4])
