"""Native code reads bare memory: what a tensor shows and what lies there may differ."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from evergraft import EvergraftError, SparseLinear
from evergraft.kernels.native import call, runnable_tiers
from tests.kernels.operations import LAYER, OPERATIONS


class Wrapped(torch.Tensor):
    """A subclass that computes as a plain tensor does."""


def outcome(operation, x: torch.Tensor, of_gradient=lambda gradient: gradient) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.detach().requires_grad_()
    torch.manual_seed(0)
    y = operation(x)
    y.backward(of_gradient(torch.full_like(y, 0.5).as_subclass(torch.Tensor)))
    return y.detach().as_subclass(torch.Tensor).clone(), x.grad.as_subclass(torch.Tensor).clone()


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(
    "disguise", [torch._neg_view, lambda x: (-x).as_subclass(Wrapped)], ids=["negative", "subclass"]
)
def test_a_tensor_in_disguise_counts_as_what_it_shows(name, disguise):
    x = torch.randn(8, 32, generator=torch.Generator().manual_seed(1))
    expected = outcome(OPERATIONS[name], -x)
    if disguise is not torch._neg_view and name in ("dropout", "residual and norm", "softmax"):
        pytest.skip("torch drops other elements than the native function, to which subclasses are not shown")
    for found, wanted in zip(outcome(OPERATIONS[name], disguise(x)), expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_gradient_in_disguise_counts_as_what_it_shows(name):
    x = torch.randn(8, 32, generator=torch.Generator().manual_seed(1))
    expected = outcome(OPERATIONS[name], x, lambda gradient: -gradient)
    for found, wanted in zip(outcome(OPERATIONS[name], x, torch._neg_view), expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", ["sparse layer", "joint layers", "feed-forward network", "gelu", "attention"])
def test_zero_without_memory_is_zero(name):
    zero = torch._efficientzerotensor((8, 32))
    assert zero._is_zerotensor()
    assert torch.equal(OPERATIONS[name](zero), OPERATIONS[name](torch.zeros(8, 32)))


def test_a_trace_computes_the_same_on_other_inputs():
    model = nn.Sequential(LAYER, nn.Tanh(), SparseLinear.random(32, 16, 0.25, (16, 1)))
    traced = torch.jit.trace(model, torch.randn(2, 32))
    x = torch.randn(5, 32)
    torch.testing.assert_close(traced(x), model(x))


@pytest.mark.skipif(not runnable_tiers(), reason="no native library was built")
def test_a_subclass_is_never_handed_to_native_code():
    x = torch.randn(4)
    with pytest.raises(EvergraftError, match="native functions take plain strided tensors; got Wrapped"):
        call("gelu", x.as_subclass(Wrapped), torch.empty(4), None, 4)
