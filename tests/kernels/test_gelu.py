"""The native GELU against torch's."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from evergraft.bench.timing import torch_threads
from evergraft.kernels.gelu import Gelu, gelu
from evergraft.kernels.native import runnable_tiers


def by_definition(x, grad):
    """GELU and its slope in float64. torch's own loses all digits where one is added to an error function near -1."""
    x = x.detach().double()
    below, density = torch.special.erfc(-x / math.sqrt(2)) / 2, torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return x * below, grad * (below + x * density)


def by_us(x, grad):
    x = x.detach().requires_grad_()
    y = gelu(x)
    assert y.grad_fn.name() == "_GeluBackward"
    return y, torch.autograd.grad(y, x, grad)[0]


@pytest.mark.parametrize("tier", runnable_tiers())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_torchs(tier, dtype, monkeypatch):
    monkeypatch.setenv("EVERGRAFT_CPU_TIER", tier)
    x = torch.cat([torch.linspace(-15, 15, 70_001), torch.linspace(-0.01, 0.01, 999)]).to(dtype)
    grad = torch.randn(x.shape).to(dtype)
    eps = torch.finfo(dtype).eps
    (y, slope), (wide, wide_slope) = by_us(x, grad), by_definition(x, grad)
    # Far below zero y is an exponential of -x^2 / 2, whose rounding counts; bf16 rounds y once, the gradient twice.
    torch.testing.assert_close(y.double(), wide, rtol=5e-6 if dtype == torch.float32 else eps, atol=1e-36)
    torch.testing.assert_close(slope.double(), wide_slope, rtol=1e-6 if dtype == torch.float32 else eps, atol=2e-6)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5), (2, 3, 7), (65, 1025)])
def test_any_shape(shape):
    x, grad = torch.randn(shape), torch.randn(shape)
    for got, expected in zip(by_us(x, grad), by_definition(x, grad), strict=True):
        assert got.shape == expected.shape
        torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)


def test_strides_do_not_matter():
    x = torch.randn(6, 10)
    assert torch.equal(gelu(x.t()), gelu(x).t())


@given(st.floats(width=32), st.sampled_from(runnable_tiers()))
def test_every_number(x, tier):
    """At an infinity the value is the limit, where torch gives NaN; NaN stays NaN."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVERGRAFT_CPU_TIER", tier)
        y, slope = (tensor.item() for tensor in by_us(torch.tensor([x]), torch.ones(1)))
    if math.isnan(x):
        assert math.isnan(y)
        assert math.isnan(slope)
        return
    below = 0.5 * math.erfc(-x / math.sqrt(2)) if x > -1e30 else 0.0
    expected = x * below if below else 0.0
    assert y == pytest.approx(expected, rel=3e-6, abs=1e-36)
    assert slope == pytest.approx(
        below + (x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi) if abs(x) < 40 else 0), abs=1e-6
    )


def test_the_module_is_the_function():
    x = torch.randn(3, 5)
    assert torch.equal(Gelu()(x), gelu(x))


def test_threads_change_nothing():
    x = torch.randn(3, 50_000)
    results = []
    for threads in (1, 3):
        with torch_threads(threads):
            results.append(by_us(x, torch.ones_like(x)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_nothing_is_kept_where_no_gradient_is_asked():
    x = torch.randn(5)
    assert gelu(x).grad_fn is None
    with torch.no_grad():
        assert torch.equal(gelu(x.clone().requires_grad_()), gelu(x))


def test_a_second_derivative_is_refused():
    x = torch.randn(5, requires_grad=True)
    (slope,) = torch.autograd.grad(gelu(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(slope.sum(), x)


def test_unsupported_tensors_go_to_torch():
    x = torch.randn(5, dtype=torch.float64)
    assert torch.equal(gelu(x), F.gelu(x))
