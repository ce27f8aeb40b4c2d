"""Fast dropout is dropout: the statistics, the gradient, the random state."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evergraft.bench.timing import torch_threads
from evergraft.kernels import dropout as module
from evergraft.kernels.dropout import Dropout, dropout
from evergraft.kernels.native import runnable_tiers
from tests.kernels.philox import kept, philox


def test_known_random_numbers():
    """As published with Random123, for a counter and a key of zero."""
    assert philox(np.zeros(1, np.uint64), 0)[:, 0].tolist() == [0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [0, 1, 127, 128, 129, 1000, 2 * 2**16 + 5])
@pytest.mark.parametrize("tier", runnable_tiers())
def test_every_tier_drops_the_same(tier, count, dtype, monkeypatch):
    seed = 2**63 + 12345
    monkeypatch.setenv("EVERGRAFT_CPU_TIER", tier)
    monkeypatch.setattr(module, "draw_seed", lambda: seed)
    x = torch.randn(count).to(dtype)
    scale = np.float32(2**16 / (2**16 - 6554))
    assert torch.equal(dropout(x, 0.1), torch.where(kept(x.shape, seed, 6554), x.float() * scale, 0).to(dtype))


def test_threads_change_nothing():
    x, results = torch.ones(300_000), []
    for count in (1, 3):
        torch.manual_seed(1)
        with torch_threads(count):
            results.append(dropout(x, 0.3))
    assert torch.equal(*results)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_unsupported_tensors_go_to_torch(dtype):
    assert 0.4 < (dropout(torch.ones(1000, dtype=dtype), 0.5) == 0).double().mean() < 0.6


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_statistics(probability, dtype):
    x = torch.ones(1000, 1001, dtype=dtype)
    y = dropout(x, probability)
    dropped = (y == 0).float()
    assert dropped.mean().item() == pytest.approx(probability, abs=0.002)
    assert dropped.mean(0).std() < 0.02  # no column, and no lane of the random numbers, is favoured
    assert abs(torch.corrcoef(dropped[:, :8].t()) - torch.eye(8)).max() < 0.15
    assert y[y != 0].float().mean().item() == pytest.approx(1 / (1 - probability), rel=0.01)


def test_gradient_passes_where_values_do():
    x = torch.randn(7, 5, requires_grad=True)
    y = dropout(x, 0.5)
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach() / x.detach())


def test_follows_the_seed():
    x = torch.ones(33)
    torch.manual_seed(1)
    first, second = dropout(x, 0.5), dropout(x, 0.5)
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(dropout(x, 0.5), first)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (2, 3)])
def test_any_shape(shape):
    assert dropout(torch.ones(shape), 0.5).shape == shape


def test_strided_input():
    x = torch.arange(1.0, 13.0).view(3, 4).t()
    y = dropout(x, 0.5)
    assert all(out in (0, 2 * into) for out, into in zip(y.flatten().tolist(), x.flatten().tolist(), strict=True))


def test_only_training_drops():
    layer, x = Dropout(0.5), torch.ones(100)
    assert not torch.equal(layer(x), x)
    assert layer.eval()(x) is x


def test_compiles():
    layer = torch.compile(Dropout(0.5), fullgraph=True, backend="eager")
    assert 0.2 < (layer(torch.ones(100)) == 0).float().mean() < 0.8
