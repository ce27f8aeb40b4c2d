"""GELU and its slope in one native pass on the CPU."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers.activations import GELUActivation

from evergraft.kernels.native import DTYPES, call, serves


def gelu(x: Tensor) -> Tensor:
    """As `torch.nn.functional.gelu`: x times the probability that a normal number lies below x.

    On the CPU one native pass, which keeps the slope in place of x: the gradient is one multiplication. torch computes
    an error function forward and again, with an exponential, backward.

    Args:
        x: floating, of any shape.
    """
    if not serves(x):
        return F.gelu(x)
    y: Tensor = _Gelu.apply(x)  # type: ignore[no-untyped-call]
    return y


class Gelu(GELUActivation):
    """transformers' `gelu`, by `gelu`."""

    def forward(self, x: Tensor) -> Tensor:
        """X of any shape -> the same shape."""
        return gelu(x)


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        y = torch.empty_like(x)
        slope = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        call("gelu", x, y, slope, x.numel(), ctypes.c_int(DTYPES[x.dtype]))
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        slope: Tensor = ctx.saved_tensors[0]
        return grad * slope
