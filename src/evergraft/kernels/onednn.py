"""Dense fp32 products by oneDNN, where torch would take MKL."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def has_onednn(dtype: torch.dtype = torch.float32) -> bool:
    """Whether this torch can be made to multiply on the CPU with oneDNN, in fp32 too; bf16 takes a processor for it."""
    return hasattr(torch.ops.mkldnn, "_linear_pointwise") and (dtype != torch.bfloat16 or multiplies_bf16())


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def multiplies_bf16() -> bool:
    """Whether torch has fast bf16 products on this processor."""
    ops = torch.ops.mkldnn
    return hasattr(ops, "_is_mkldnn_bf16_supported") and bool(ops._is_mkldnn_bf16_supported())


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear` on the CPU, by oneDNN in fp32 too; not differentiable.

    torch itself multiplies in fp32 by MKL, which on AMD stays on AVX2; oneDNN uses AVX-512 on every processor that has
    it, and is twice as fast there.

    Args:
        x: [tokens, in], of any strides.
        weight: [out, in], of any strides.
        bias: [out].

    Returns:
        [tokens, out].
    """
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y


class OneDnnLinear(nn.Linear):
    """`nn.Linear` on the CPU by oneDNN, in all three products."""

    def forward(self, x: Tensor) -> Tensor:
        """X [..., in] -> [..., out], fp32."""
        y: Tensor = _Linear.apply(x.reshape(-1, x.shape[-1]), self.weight, self.bias)  # type: ignore[no-untyped-call]
        return y.view(*x.shape[:-1], self.out_features)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return onednn_linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return onednn_linear(grad, weight.t()), onednn_linear(grad.t(), x.t()), grad.sum(0)
