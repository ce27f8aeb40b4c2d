"""Dropout, residual and norm in one pass, against torch's own operators."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from evergraft.bench.timing import torch_threads
from evergraft.kernels import dropout
from evergraft.kernels.dropout import Dropout
from evergraft.kernels.native import runnable_tiers
from evergraft.kernels.residual_norm import residual_norm
from tests.kernels.philox import kept

SEED = 7


def problem(rows, features, dtype=torch.bfloat16):
    norm = nn.LayerNorm(features, eps=1e-12)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(rows, 2, features).to(dtype).requires_grad_()
    return x, torch.randn(rows, 2, features, requires_grad=True), norm


def factors(x):
    """The factors of x under native dropout of 0.1, of which each row draws its bits in groups of 128."""
    groups = -(-x.shape[-1] // 128) * 128
    return kept((*x.shape[:-1], groups), SEED, 6554)[..., : x.shape[-1]] / (1 - 6554 / 2**16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("probability", [0.0, 0.1])
@pytest.mark.parametrize(("rows", "features"), [(3, 128), (5, 48), (7, 272), (40, 768), (600, 256), (0, 64)])
@pytest.mark.parametrize("tier", runnable_tiers())
def test_equals_torchs_operators(tier, rows, features, probability, dtype, monkeypatch):
    """All numbers up to 1e-5 in fp32, but for sums over rows, and in bf16 what is in fp32; the rest by its norm."""
    monkeypatch.setenv("EVERGRAFT_CPU_TIER", tier)
    monkeypatch.setattr(dropout, "draw_seed", lambda: SEED)
    x, residual, norm = problem(rows, features, dtype)
    got = residual_norm(x, residual, norm, Dropout(probability))
    assert got.grad_fn.name() == "_ResidualNormBackward"
    grad = torch.randn_like(got)
    ours = torch.autograd.grad(got, (x, residual, norm.weight, norm.bias), grad)
    mask = factors(x) if probability else torch.ones(())
    norm.double()
    wide, residual = x.detach().double().requires_grad_(), residual.detach().double().requires_grad_()
    expected = norm(wide * mask + residual)
    theirs = torch.autograd.grad(expected, (wide, residual, norm.weight, norm.bias), grad.double())
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)
    tolerances = (1e-6,) * 4 if dtype == torch.float32 else (5e-3, 2e-3, 5e-3, 1e-5)
    for a, b, relative in zip(ours, theirs, tolerances, strict=True):
        assert (a.double() - b).norm() <= relative * b.norm()


def test_gradients_share_no_memory():
    """Without dropout those of x and of the residual are the same numbers."""
    x, residual, norm = problem(3, 128, torch.float32)
    residual_norm(x, residual, norm, Dropout(0.0)).sin().sum().backward()
    assert torch.equal(x.grad, residual.grad)
    assert x.grad.data_ptr() != residual.grad.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_change_nothing(dtype):
    x, residual, norm = problem(100, 144, dtype)
    results = []
    for count in (1, 3):
        torch.manual_seed(1)
        with torch_threads(count):
            y = residual_norm(x, residual, norm, Dropout(0.1))
            results.append((y, *torch.autograd.grad(y.sin().sum(), (x, residual, norm.weight, norm.bias))))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_is_dropped_in_evaluation(dtype):
    x, residual, norm = problem(5, 64, dtype)
    expected = norm(x.float() + residual)
    torch.testing.assert_close(residual_norm(x, residual, norm, Dropout(0.5).eval()), expected)


@pytest.mark.parametrize(("features", "dtype"), [(100, torch.bfloat16), (100, torch.float32), (128, torch.float64)])
def test_unsupported_tensors_go_to_torch(features, dtype):
    x, residual, norm = problem(3, features)
    x = x.detach().to(dtype)
    norm, residual = (norm.double(), residual.double()) if dtype == torch.float64 else (norm, residual)
    assert torch.equal(residual_norm(x, residual, norm, Dropout(0.0)), norm(x + residual))


def test_other_norms_and_shapes_go_to_torch():
    x, residual, norm = problem(3, 128, torch.float32)
    for odd in (nn.LayerNorm((2, 128)), nn.LayerNorm(128, bias=False), nn.LayerNorm(128, elementwise_affine=False)):
        assert torch.equal(residual_norm(x, residual, odd, Dropout(0.0)), odd(x + residual))
    assert torch.equal(residual_norm(x, residual[0, 0], norm, Dropout(0.0)), norm(x + residual[0, 0]))
