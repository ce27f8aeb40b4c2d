"""GELU and its slope in one native pass on the CPU."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from evergraft.kernels.native import DTYPES, call, serves


def gelu(x: Tensor) -> Tensor:
    """`torch.nn.functional.gelu(x)`: x times the probability that a standard normal number lies below x.

    On the CPU one native pass (native/gelu.cpp) computes the value and, where a gradient will be needed, the slope,
    which is kept in place of x, so that backward is one multiplication. torch computes the error function twice, once
    forward and once backward. The native function can be differentiated once.

    Args:
        x: floating, of any shape. Tensors that the native library cannot take go to torch.

    Returns:
        A tensor of the shape and dtype of x.
    """
    if not serves(x):
        return F.gelu(x)
    y: Tensor = _Gelu.apply(x)  # type: ignore[no-untyped-call]
    return y


class Gelu(nn.Module):
    """A module that applies `gelu`, in place of `nn.GELU()`."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply GELU to x, floating, of any shape; the result has the same shape and dtype."""
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
