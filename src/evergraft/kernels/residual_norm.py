"""What follows the attention and the feed-forward of a layer: dropout, the residual sum and the layer norm in one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.bert.modeling_bert import BertOutput, BertSelfOutput

from evergraft.kernels.dropout import Choice, choose
from evergraft.kernels.native import call, serves

_GROUP = 128  # features that a native row must hold a multiple of: DRAW of native/random.hpp


def residual_norm(x: Tensor, residual: Tensor, norm: nn.LayerNorm, dropout: nn.Dropout) -> Tensor:
    """norm(dropout(x) + residual).

    In bf16 on the CPU one native pass: it reads and writes each number once, where torch's own operators do so eight
    times. The residual and the statistics stay in fp32, as under autocast; what the gradient needs is kept in bf16.
    fp32 keeps torch's operators, and their bits.

    Args:
        x: [..., features], the output of a linear layer.
        residual: [..., features].

    Returns:
        [..., features]; under autocast in fp32.
    """
    if not (
        serves(x, residual)
        and (x.dtype, residual.dtype, norm.weight.dtype) == (torch.bfloat16, torch.float32, torch.float32)
        and norm.bias is not None
        and x.shape[-1] % _GROUP == 0
    ):
        y: Tensor = norm(dropout(x) + residual)
        return y
    choice = choose(dropout.p if dropout.training else 0.0)
    return _ResidualNorm.apply(x, residual, norm.weight, norm.bias, norm.eps, choice)  # type: ignore[no-any-return, no-untyped-call]


class ResidualNorm:
    """The forward of transformers' `BertSelfOutput` and `BertOutput`, by `residual_norm`."""

    dense: nn.Linear
    LayerNorm: nn.LayerNorm
    dropout: nn.Dropout

    def forward(self, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
        """[..., in], and the residual [..., features] -> [..., features]."""
        return residual_norm(self.dense(hidden_states), input_tensor, self.LayerNorm, self.dropout)


class SelfOutput(ResidualNorm, BertSelfOutput):
    """What follows the attention of a layer."""


class Output(ResidualNorm, BertOutput):
    """What follows the feed-forward of a layer."""


class _ResidualNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, epsilon: float, choice: Choice
    ) -> Tensor:
        x, residual = x.contiguous(), residual.contiguous()
        out, normal, deviations = torch.empty_like(residual), torch.empty_like(x), residual.new_empty(x.shape[:-1])
        rows, features = deviations.numel(), x.shape[-1]
        operands = (x, residual, weight, bias, epsilon, out, normal, deviations)
        call("residual_norm", *operands, rows, features, *choice)
        ctx.save_for_backward(weight, normal, deviations)
        ctx.choice = choice
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, normal, deviations = ctx.saved_tensors
        grad = grad.contiguous()
        residual, x = torch.empty_like(grad), torch.empty_like(normal)
        gain, bias = torch.empty_like(weight), torch.empty_like(weight)
        operands = (grad, weight, normal, deviations, residual, x, gain, bias)
        rows, features = deviations.numel(), grad.shape[-1]
        call("residual_norm_backward", *operands, rows, features, *ctx.choice)
        return x, residual, gain, bias, None, None
