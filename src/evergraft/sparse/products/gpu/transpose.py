"""A tiled transposition: torch's own copy of a transposed matrix leaves most of the bandwidth unused."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 64
NARROW = 16  # fewer neighbouring 2-byte features than this do not fill a 32-byte sector of memory


def transposed(matrix: Tensor) -> Tensor:
    """[A, B], of any strides -> a contiguous [B, A]."""
    result = matrix.new_empty(matrix.shape[1], matrix.shape[0])
    across = triton.cdiv(matrix.shape[1], BLOCK)
    grid = (triton.cdiv(matrix.shape[0], BLOCK) * across,)
    _transpose[grid](matrix, result, *matrix.shape, *matrix.stride(), across, BLOCK=BLOCK)
    return result


def readable(x: Tensor, width: int) -> Tensor:
    """X [tokens, features] laid out so that reading `width` neighbouring features of many tokens is fast.

    Narrow reads want the tokens of a feature side by side, wide ones the features of a token.
    """
    if width < NARROW:
        return x if x.stride(0) == 1 else transposed(x).t()
    return x if x.stride(1) == 1 else x.contiguous()


@triton.jit
def _transpose(source, target, rows, columns, row_stride, column_stride, across, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = (tl.program_id(0) // across).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    column = (tl.program_id(0) % across).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    within = (row < rows)[:, None] & (column < columns)[None, :]
    tile = tl.load(source + row[:, None] * row_stride + column[None, :] * column_stride, mask=within)
    tl.store(target + column[None, :] * rows + row[:, None], tile, mask=within)
