"""Dropout that costs little on the CPU: its mask is a function of a seed, so that no mask is ever stored.

Attention and the residual sum drop elements natively too; `DropoutMask` and `draw_mask` are what they share with this
module.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evergraft.kernels.native import DTYPES, call, serves

LEVELS = 2**16  # the native functions compare 16 random bits, so a probability is rounded to a multiple of 1 / LEVELS


def dropout(x: Tensor, probability: float) -> Tensor:
    """`torch.nn.functional.dropout(x, probability)` in training, on the CPU ten times as fast.

    torch draws one Bernoulli number for each element, which takes longer than everything else about dropout. Here one
    number of torch's default generator seeds the counter-based generator Philox (Salmon et al., "Parallel random
    numbers: as easy as 1, 2, 3", 2011), which gives every element 16 bits (native/dropout.cpp). Kept elements are
    scaled by the probability as it was rounded, so that the expectation is exact.

    Args:
        x: floating, of any shape. Tensors that the native library cannot take go to torch.
        probability: that an element becomes zero, in [0, 1).

    Returns:
        A tensor of the shape and dtype of x.
    """
    if not serves(x):
        return F.dropout(x, probability)
    mask = draw_mask(probability)
    return _Dropout.apply(x, mask) if mask.dropped else x  # type: ignore[no-untyped-call]


class DropoutMask(NamedTuple):
    """Which elements of a tensor a native function sets to zero: those whose 16 random bits lie below `dropped`.

    Attributes:
        seed: the seed of the random bits.
        dropped: how many of the `LEVELS` values of the bits mean zero; with 0 nothing is dropped.
    """

    seed: ctypes.c_uint64
    dropped: int


def draw_mask(probability: float) -> DropoutMask:
    """A mask for one tensor, its seed drawn from torch's default generator.

    Args:
        probability: that an element becomes zero, in [0, 1). If it rounds to zero, nothing is drawn.
    """
    dropped = min(round(probability * LEVELS), LEVELS - 1)
    return DropoutMask(ctypes.c_uint64(draw_seed() if dropped else 0), dropped)


def draw_seed() -> int:
    """64 random bits of torch's default generator, as a signed integer."""
    return int(torch.empty((), dtype=torch.int64).random_(-(2**63), None))


class Dropout(nn.Dropout):
    """`nn.Dropout` by the native `dropout`; it never works in place."""

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of x, floating, of any shape, in training mode; in evaluation mode return x itself."""
        return dropout(x, self.p) if self.training and self.p else x


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: DropoutMask) -> Tensor:
        ctx.mask = mask
        x = x.contiguous()
        y = torch.empty_like(x)
        call("dropout", x, y, x.numel(), ctypes.c_int(DTYPES[x.dtype]), *mask)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Dropout.apply(grad, ctx.mask), None  # type: ignore[no-untyped-call]
