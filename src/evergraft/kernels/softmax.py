"""Softmax and the dropout of its probabilities in one native pass on the CPU."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from evergraft.kernels.dropout import DropoutMask, draw_mask, dropout
from evergraft.kernels.native import DTYPES, call, serves


def dropped_softmax(scores: Tensor, probability: float) -> Tensor:
    """`dropout(scores.softmax(-1), probability)`, as attention applies it to its scores in training.

    Args:
        scores: floating [..., length]. Tensors that the native library cannot take go to torch.
        probability: that an element of the result becomes zero, in [0, 1).

    Returns:
        [..., length], of the dtype of `scores`; what the dropout keeps is scaled by 1 / (1 - probability).
    """
    if not serves(scores):
        return dropout(scores.softmax(-1), probability)
    y: Tensor = _DroppedSoftmax.apply(scores, draw_mask(probability))  # type: ignore[no-untyped-call]
    return y


class _DroppedSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, mask: DropoutMask) -> Tensor:
        scores = scores.contiguous()
        probabilities = torch.empty_like(scores)
        kept = torch.empty_like(scores) if mask.dropped else None
        length = scores.shape[-1]
        rows = scores.numel() // max(length, 1)
        ctx.settings = rows, length, ctypes.c_int(DTYPES[scores.dtype]), *mask
        call("softmax", scores, probabilities, kept, *ctx.settings)
        ctx.save_for_backward(probabilities)
        return probabilities if kept is None else kept

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (probabilities,) = ctx.saved_tensors
        gradient = torch.empty_like(probabilities)
        call("softmax_backward", grad.contiguous(), probabilities, gradient, *ctx.settings)
        return gradient, None
