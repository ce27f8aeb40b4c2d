"""Dense linear layers in fp32 by oneDNN on the CPU, where torch would use MKL.

On AMD processors MKL does not go beyond AVX2, whereas oneDNN uses AVX-512 wherever the processor has it and is twice as
fast there. The benchmarks compare the sparse products with it too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def has_onednn(dtype: torch.dtype = torch.float32) -> bool:
    """Whether `onednn_linear` can multiply in this dtype here.

    It takes a torch built with oneDNN, and for bf16 also a processor with instructions for it.
    """
    return hasattr(torch.ops.mkldnn, "_linear_pointwise") and (dtype != torch.bfloat16 or multiplies_bf16())


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def multiplies_bf16() -> bool:
    """Whether this processor has bf16 instructions that torch's own products use."""
    ops = torch.ops.mkldnn
    return hasattr(ops, "_is_mkldnn_bf16_supported") and bool(ops._is_mkldnn_bf16_supported())


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear` on the CPU by oneDNN; not differentiable (`OneDnnLinear` is).

    Args:
        x: fp32 or bf16 [tokens, in_features], of any strides.
        weight: [out_features, in_features], of any strides and the dtype of x.
        bias: [out_features], of the dtype of x.

    Returns:
        [tokens, out_features], of the dtype of x.
    """
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y


class OneDnnLinear(nn.Linear):
    """`nn.Linear` in fp32 on the CPU, whose product and two gradients oneDNN computes."""

    def forward(self, x: Tensor) -> Tensor:
        """Multiply x, fp32 [..., in_features]; the result is fp32 [..., out_features]."""
        y: Tensor = _Linear.apply(x.reshape(-1, x.shape[-1]), self.weight, self.bias)  # type: ignore[no-untyped-call]
        return y.view(*x.shape[:-1], self.out_features)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return onednn_linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return onednn_linear(grad, weight.t()), onednn_linear(grad.t(), x.t()), grad.sum(0)
