"""Fast transposition by tiles, since torch's copy of a transposed matrix leaves most of the bandwidth unused."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 64
NARROW = 16  # 2-byte features that fill a sector of memory (32 bytes), the least that the GPU reads at once


def transposed(matrix: Tensor) -> Tensor:
    """A contiguous copy [B, A] of the transpose of a matrix [A, B] of any strides."""
    result = matrix.new_empty(matrix.shape[1], matrix.shape[0])
    across = triton.cdiv(matrix.shape[1], BLOCK)
    grid = (triton.cdiv(matrix.shape[0], BLOCK) * across,)
    _transpose[grid](matrix, result, *matrix.shape, *matrix.stride(), across, BLOCK=BLOCK)
    return result


def readable(x: Tensor, width: int) -> Tensor:
    """Lay x out so that kernels read `width` neighbouring features of many tokens fast.

    Fewer than `NARROW` features are read fast if the tokens of a feature lie side by side in memory; more, if the
    features of a token do.

    Args:
        x: [tokens, features], of any strides.
        width: how many neighbouring features are read together.

    Returns:
        x itself, or a copy of it [tokens, features] with other strides.
    """
    if width < NARROW:
        return x if x.stride(0) == 1 else transposed(x).t()
    return x if x.stride(1) == 1 else x.contiguous()


@triton.jit
def _transpose(source, target, rows, columns, row_stride, column_stride, across, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Each program copies one tile."""
    row = (tl.program_id(0) // across).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    column = (tl.program_id(0) % across).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    within = (row < rows)[:, None] & (column < columns)[None, :]
    tile = tl.load(source + row[:, None] * row_stride + column[None, :] * column_stride, mask=within)
    tl.store(target + column[None, :] * rows + row[:, None], tile, mask=within)
