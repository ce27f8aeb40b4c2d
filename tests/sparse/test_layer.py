"""SparseLinear: shapes, initial values, state, conversion to dense."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import evergraft
from evergraft import EvergraftError, SparseLinear


def test_shapes_and_exact_density():
    layer = SparseLinear.random(64, 128, density=0.1, block=(16, 1))
    assert layer.values.shape == (51, 16, 1)  # round(0.1 * 8 * 64)
    assert layer.bias.shape == (128,)
    assert layer(torch.randn(2, 3, 64)).shape == (2, 3, 128)
    assert "block=16x1" in repr(layer)
    assert {name for name, _ in layer.named_buffers()} == {
        "row_offsets",
        "columns",
        "transposed_offsets",
        "transposed_order",
    }
    assert set(layer.state_dict()) == {"values", "bias", *dict(layer.named_buffers())}


def test_initial_values_are_a_truncated_normal():
    values = SparseLinear.random(512, 512, density=0.5, block=(1, 1)).values.detach()
    assert values.abs().max() <= 0.04
    # A normal cut at two deviations keeps 0.8796 of its deviation.
    assert abs(values.std().item() - 0.02 * 0.8796) < 2e-4
    assert abs(values.mean().item()) < 2e-4


def test_seed_decides_the_topology():
    first, same, other = (SparseLinear.random(64, 64, 0.2, (4, 4), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.columns, same.columns)
    assert not torch.equal(first.columns, other.columns)


def test_dense_twin_computes_the_same():
    layer = SparseLinear.random(32, 48, 0.3, (8, 2)).double()
    nn.init.normal_(layer.bias)
    x = torch.randn(5, 32, dtype=torch.float64)
    twin = layer.to_dense()
    torch.testing.assert_close(twin(x), layer(x))
    assert (twin.weight != 0).sum() <= layer.values.numel()
    again = SparseLinear(layer.topology).double()
    again.copy_from(twin)
    assert torch.equal(again.values, layer.values)


def test_state_dict_carries_the_topology():
    layer, other = (SparseLinear.random(32, 32, 0.25, (4, 4), seed=seed) for seed in (0, 1))
    other.load_state_dict(layer.state_dict())
    x = torch.randn(3, 32)
    assert torch.equal(layer(x), other(x))


@pytest.mark.parametrize("name", ["columns", "row_offsets", "transposed_order", "transposed_offsets"])
def test_a_tampered_topology_is_refused_before_anything_is_loaded(name):
    layer = SparseLinear.random(32, 32, 0.25, (4, 4))
    before = copy.deepcopy(layer.state_dict())
    state = copy.deepcopy(before)
    state[name][-1] = 99
    with pytest.raises(EvergraftError, match="the topology to load into the layer"):
        layer.load_state_dict(state)
    assert all(torch.equal(before[key], value) for key, value in layer.state_dict().items())


def test_set_topology_refuses_another_shape():
    layer = SparseLinear.random(32, 32, 0.25, (4, 4))
    with pytest.raises(EvergraftError, match="the layer holds 16 blocks of 4x4"):
        layer.set_topology(SparseLinear.random(32, 32, 0.5, (4, 4)).topology)


def test_moves_and_copies_like_any_module():
    layer = SparseLinear.random(16, 16, 0.5, (4, 4), bias=False)
    assert layer.bias is None
    twin = copy.deepcopy(layer).to(torch.bfloat16)
    assert twin.values.dtype == torch.bfloat16
    assert twin.columns.dtype == torch.int32
    assert layer.values.dtype == torch.float32
    assert twin(torch.randn(2, 16, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_unknown_backend_refused():
    with pytest.raises(EvergraftError, match="no backend is called 'quick'"):
        SparseLinear.random(16, 16, backend="quick")


@pytest.mark.parametrize(("density", "block"), [(0.5, (4, 4)), (0.25, (8, 8)), (0.25, (4, 2))])
def test_a_state_of_other_shapes_is_refused_before_anything_is_loaded(density, block):
    layer = SparseLinear.random(32, 32, 0.25, (4, 4))
    before = copy.deepcopy(layer.state_dict())
    for strict in (True, False):
        with pytest.raises(RuntimeError, match="make the model with the sizes, density and block that were saved"):
            layer.load_state_dict(SparseLinear.random(32, 32, density, block).state_dict(), strict=strict)
    assert all(torch.equal(before[key], value) for key, value in layer.state_dict().items())


def test_set_topology_refuses_another_block():
    layer = SparseLinear.random(32, 32, 0.25, (4, 4))
    with pytest.raises(EvergraftError, match=r"got 16 of 8x8 in \[64, 64\]"):
        layer.set_topology(SparseLinear.random(64, 64, 0.25, (8, 8)).topology)


def test_a_block_is_two_numbers():
    for block in (16, (16,), (4, 4, 4)):
        with pytest.raises(EvergraftError, match="a block is its rows and columns"):
            SparseLinear.random(32, 32, 0.25, block)


def test_modules_that_look_at_a_weight_find_one():
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)
    evergraft.sparsify(model, 0.5, (4, 4), include="*linear?")
    x = torch.randn(2, 3, 16)
    model.eval()
    with torch.no_grad():
        fast = model(x)  # torch's fast path multiplies by the weights itself
    slow = model(x)  # gradients are wanted, so the layers are called
    assert slow.requires_grad
    torch.testing.assert_close(fast, slow)
    layer = model.layers[0].linear1
    assert torch.equal(layer.weight, layer.to_dense().weight)
