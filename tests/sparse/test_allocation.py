"""How blocks are shared out: exact counts, by layer and by row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
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


@pytest.fixture
def answering():
    """A function that registers an allocation with a given answer."""

    def register(answer):
        ALLOCATIONS.register("odd")(answer)
        return SparsityConfig(block=(4, 2), include="*", allocation="odd")

    yield register
    ALLOCATIONS.unregister("odd")


@pytest.mark.parametrize("counts", [0, 65, [2, 2], [9] + [0] * 7, [0] * 8, 2.5, None, [0.5] * 8, "12345678"])
def test_counts_that_do_not_fit_are_refused(answering, counts):
    config = answering(lambda layers: dict.fromkeys(layers, counts))
    net = nn.Sequential(nn.Linear(16, 32))
    with pytest.raises(EvergraftError, match=r"allocation 'odd': layer 0 gets .* blocks, of 8 x 8 positions"):
        sparsify(net, config)
    assert type(net[0]) is nn.Linear


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda layers: [8], "expected a count for each layer, as a dict; got list"),
        (lambda layers: dict.fromkeys([*layers, "9"], 8), "there is no layer 9 among those to be sparse"),
        (lambda layers: {}, "layer 0 gets 0 blocks"),
    ],
)
def test_answers_of_another_kind_are_refused(answering, answer, says):
    config = answering(answer)
    with pytest.raises(EvergraftError, match=f"allocation 'odd': {says}"):
        sparsify(nn.Sequential(nn.Linear(16, 32)), config)


@pytest.mark.parametrize("counts", [np.int64(16), np.full(8, 2), torch.tensor(16)])
def test_counts_of_numpy_and_torch_are_counts(answering, counts):
    config = answering(lambda layers: dict.fromkeys(layers, counts))
    assert sparsify(nn.Sequential(nn.Linear(16, 32)), config).density == 0.25


def test_an_override_that_matches_no_layer_is_refused():
    with pytest.raises(EvergraftError, match=r"override \*\.quary=0\.2 matches none of the layers to be sparse: 0, 1"):
        sparsify(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), 0.5, (4, 4), include="*", overrides={"*.quary": 0.2})


def test_total():
    assert total(7) == 7 == total([3, 4])
