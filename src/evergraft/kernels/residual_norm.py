"""Dropout, the sum with the residual and the layer norm in one native pass on the CPU.

A transformer layer computes these three after its attention and again after its feed-forward network.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from evergraft.kernels.dropout import DropoutMask, draw_mask
from evergraft.kernels.native import DTYPES, call, serves

_VECTOR = 16  # the features of a native row are a multiple of this, the most lanes that a vector of any tier has


def residual_norm(x: Tensor, residual: Tensor, norm: nn.LayerNorm, dropout: nn.Dropout) -> Tensor:
    """`norm(dropout(x) + residual)`, on the CPU in one native pass (native/dropout.cpp).

    The native pass reads and writes each number once. It is taken if x is fp32 or bf16, `residual` and the weights of
    `norm` are fp32, as under autocast, and the number of features is a multiple of 16; it can be differentiated once.
    The sum and the statistics are in fp32; what the gradient needs is kept in the dtype of x. In fp32 the results
    differ from those of torch's operators by rounding. Everything else goes to these operators.

    Args:
        x: [..., features], the output of a linear layer.
        residual: [..., features], of the shape of x.
        norm: over the last dimension. It gives the weight, the bias and epsilon.
        dropout: it gives the probability, and by its training mode whether anything is dropped.

    Returns:
        [..., features]; fp32 under autocast.
    """
    if not _fit(x, residual, norm) or not serves(x, residual, norm.weight, norm.bias):
        y: Tensor = norm(dropout(x) + residual)
        return y
    mask = draw_mask(dropout.p if dropout.training else 0.0)
    return _ResidualNorm.apply(x, residual, norm.weight, norm.bias, norm.eps, mask)  # type: ignore[no-any-return, no-untyped-call]


def _fit(x: Tensor, residual: Tensor, norm: nn.LayerNorm) -> bool:
    """Whether shapes and dtypes are such as the native functions take."""
    return (
        norm.weight is not None
        and norm.bias is not None
        and x.shape == residual.shape
        and x.shape[-1:] == norm.normalized_shape
        and x.shape[-1] % _VECTOR == 0
        and residual.dtype == norm.weight.dtype == norm.bias.dtype == torch.float32
    )


class _ResidualNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, epsilon: float, mask: DropoutMask
    ) -> Tensor:
        x, residual = x.contiguous(), residual.contiguous()
        out, normal, deviations = torch.empty_like(residual), torch.empty_like(x), residual.new_empty(x.shape[:-1])
        ctx.settings = deviations.numel(), x.shape[-1], ctypes.c_int(DTYPES[x.dtype]), *mask
        operands = (x, residual, weight, bias, epsilon, out, normal, deviations)
        call("residual_norm", *operands, *ctx.settings)
        ctx.save_for_backward(weight, normal, deviations)
        ctx.is_same = x.dtype == residual.dtype and not mask.dropped
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, normal, deviations = ctx.saved_tensors
        grad = grad.contiguous()
        residual, x = torch.empty_like(grad), None if ctx.is_same else torch.empty_like(normal)
        gain, bias = torch.empty_like(weight), torch.empty_like(weight)
        operands = (grad, weight, normal, deviations, residual, x, gain, bias)
        call("residual_norm_backward", *operands, *ctx.settings)
        return residual if x is None else x, residual, gain, bias, None, None
