"""Softmax and dropout in one pass, against torch's two."""

from __future__ import annotations

import pytest
import torch

from evergraft.kernels import dropout as dropout_module
from evergraft.kernels.native import runnable_tiers
from evergraft.kernels.softmax import dropped_softmax
from tests.kernels.philox import kept


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(2, 3, 128), (300, 32), (5, 7), (1, 130), (0, 4), (3, 0)], ids=str)
@pytest.mark.parametrize("tier", runnable_tiers())
def test_equals_softmax_and_dropout(tier, shape, dropout, dtype, monkeypatch):
    monkeypatch.setenv("EVERGRAFT_CPU_TIER", tier)
    monkeypatch.setattr(dropout_module, "draw_seed", lambda: 5)
    scores = (3 * torch.randn(shape)).to(dtype).requires_grad_()
    grad = torch.randn(shape).to(dtype)
    wide = scores.detach().double().requires_grad_()
    mask = kept(shape, 5, 6554) / (1 - 6554 / 2**16) if dropout else torch.ones(())
    expected = wide.softmax(-1) * mask
    got = dropped_softmax(scores, dropout)
    (ours,), (theirs,) = torch.autograd.grad(got, scores, grad), torch.autograd.grad(expected, wide, grad.double())
    assert got.dtype == ours.dtype == dtype
    tolerance = 2e-6 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(got.double(), expected, rtol=tolerance, atol=1e-30)
    torch.testing.assert_close(ours.double(), theirs, rtol=tolerance, atol=tolerance)


def test_a_nan_stays_in_its_row():
    scores = torch.randn(3, 20)
    scores[1, 4], scores[2, 5] = torch.nan, -torch.inf
    probabilities = dropped_softmax(scores, 0.0)
    assert probabilities.isnan().any(1).tolist() == [False, True, False]
    assert probabilities[2, 5] < 1e-30


def test_unsupported_tensors_go_to_torch():
    scores = torch.randn(3, 20, dtype=torch.float64)
    assert torch.equal(dropped_softmax(scores, 0.0), scores.softmax(-1))
