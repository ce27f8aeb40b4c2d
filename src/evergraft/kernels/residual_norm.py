"""Dropout, the sum with the residual and the layer norm in one native pass on the CPU.

A transformer layer computes these three after its attention and again after its feed-forward network.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from evergraft.kernels.dropout import DropoutMask, draw_mask
from evergraft.kernels.native import call, serves

_GROUP = 128  # the features of a native row are a multiple of this: one draw of random bits (`DRAW` in native/)


def residual_norm(x: Tensor, residual: Tensor, norm: nn.LayerNorm, dropout: nn.Dropout) -> Tensor:
    """`norm(dropout(x) + residual)`, under bf16 autocast on the CPU in one native pass (native/dropout.cpp).

    The native pass reads and writes each number once, where torch's operators do so eight times. It is taken if x is
    bf16, `residual` and the weights of `norm` are fp32, and the number of features is a multiple of 128; it can be
    differentiated once. The residual and the statistics stay in fp32, as under autocast; what the gradient needs is
    kept in bf16. Everything else, fp32 included, goes to torch's operators and so gives their bits.

    Args:
        x: [..., features], the output of a linear layer.
        residual: [..., features], of the shape of x.
        norm: over the last dimension. It gives the weight, the bias and epsilon.
        dropout: it gives the probability, and by its training mode whether anything is dropped.

    Returns:
        [..., features]; fp32 under autocast.
    """
    if not (
        serves(x, residual)
        and (x.dtype, residual.dtype, norm.weight.dtype) == (torch.bfloat16, torch.float32, torch.float32)
        and norm.bias is not None
        and x.shape[-1] % _GROUP == 0
    ):
        y: Tensor = norm(dropout(x) + residual)
        return y
    mask = draw_mask(dropout.p if dropout.training else 0.0)
    return _ResidualNorm.apply(x, residual, norm.weight, norm.bias, norm.eps, mask)  # type: ignore[no-any-return, no-untyped-call]


class _ResidualNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, epsilon: float, mask: DropoutMask
    ) -> Tensor:
        x, residual = x.contiguous(), residual.contiguous()
        out, normal, deviations = torch.empty_like(residual), torch.empty_like(x), residual.new_empty(x.shape[:-1])
        rows, features = deviations.numel(), x.shape[-1]
        operands = (x, residual, weight, bias, epsilon, out, normal, deviations)
        call("residual_norm", *operands, rows, features, *mask)
        ctx.save_for_backward(weight, normal, deviations)
        ctx.mask = mask
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, normal, deviations = ctx.saved_tensors
        grad = grad.contiguous()
        residual, x = torch.empty_like(grad), torch.empty_like(normal)
        gain, bias = torch.empty_like(weight), torch.empty_like(weight)
        operands = (grad, weight, normal, deviations, residual, x, gain, bias)
        rows, features = deviations.numel(), grad.shape[-1]
        call("residual_norm_backward", *operands, rows, features, *ctx.mask)
        return x, residual, gain, bias, None, None
