"""Products of blocks that are narrow on the side of the outputs and wide on the other, in two steps.

Take the input gradient of blocks of 64x1: each block computes the gradient of one input from those of 64 outputs, and
one input does not fill a tensor-core tile. So the first kernel goes by the wide side, where all blocks of a group share
their operand, and writes what each block adds to the result: its *shares*. The second kernel sums the shares of each
number of the result in the order of the blocks. Both take only as many tokens at a time as keep the shares within the
GPU's second-level cache. The module `grouping` defines group, span, run and place.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from evergraft.sparse.products.gpu.grouping import Grouping
from evergraft.sparse.products.gpu.transpose import readable
from evergraft.sparse.products.gpu.tuning import bucket, tuned
from evergraft.sparse.products.gpu.work import Work, divide, dot_precision, item_range, pointer, power_of_two

SHARES_BYTES = 64 * 2**20  # the shares at a time take this much: about the second-level cache of a large GPU
FEWEST_TOKENS = 64  # tokens at a time, at least
GATHERED = 64  # shares that a program writes for each token; those of one block, if it has more
WIDEST_TILE = 64  # features of the wide side that a program multiplies at a time
COLLECT_TOKENS, COLLECT_FEATURES = 64, 32


def spread_product(x: Tensor, values: Tensor, bias: Tensor | None, wide: Grouping, narrow: Grouping) -> Tensor:
    """Multiply x by the blocks, and add the bias.

    Args:
        x: [tokens, groups * span of `wide`], of any strides.
        values: [active, R, C], contiguous.
        bias: [groups * span of `narrow`], contiguous, or None.
        wide: the blocks grouped by inputs, the wide side.
        narrow: the same blocks grouped by outputs, the narrow side.

    Returns:
        [tokens, groups * span of `narrow`], contiguous, of the dtype of x.
    """
    tokens, features = x.shape[0], narrow.groups * narrow.span
    y = x.new_empty(tokens, features)
    shares_a_token, dtype = wide.active * wide.run, _shares_dtype(x.dtype)
    most = SHARES_BYTES // (dtype.itemsize * shares_a_token)
    step = max(FEWEST_TOKENS, most // FEWEST_TOKENS * FEWEST_TOKENS)
    work = divide(wide, max(1, GATHERED // wide.run))
    shares = x.new_empty(shares_a_token, min(step, tokens), dtype=dtype)
    x = readable(x, wide.span)
    for start in range(0, tokens, step):
        stop = min(start + step, tokens)
        _spread(x[start:stop], values, shares, wide, work)
        _collect(shares, bias, y[start:stop], narrow)
    return y


def _shares_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which shares are stored: `dtype` if torch may reduce in half precision (the default), else float32.

    A share is a float32 sum over one block and is rounded once; the shares of an output are summed in float32. The
    switches are torch's own, `torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction` and its fp16 twin.
    """
    matmul = torch.backends.cuda.matmul
    reduced = {
        torch.bfloat16: matmul.allow_bf16_reduced_precision_reduction,
        torch.float16: matmul.allow_fp16_reduced_precision_reduction,
    }
    return dtype if reduced.get(dtype) else torch.float32


def _spread(x: Tensor, values: Tensor, shares: Tensor, wide: Grouping, work: Work) -> None:
    tokens = x.shape[0]
    block_run = power_of_two(work.limit * wide.run, 16, 128)
    _spread_dot[lambda meta: (work.item_count * triton.cdiv(tokens, meta["BLOCK_TOKENS"]),)](
        x,
        values,
        shares,
        wide.offsets,
        pointer(wide.slots, wide.across),
        pointer(work.items, wide.offsets),
        *x.stride(),
        shares.stride(0),
        tokens,
        work.item_count,
        work.limit,
        bucket=bucket(tokens),
        groups=wide.groups,
        SPAN=wide.span,
        RUN=wide.run,
        SPAN_STRIDE=wide.span_stride,
        RUN_STRIDE=wide.run_stride,
        ORDERED=wide.slots is None,
        SPLIT=work.items is not None,
        PRECISION=dot_precision(x),
        BLOCK_RUN=block_run,
        BLOCK_SPAN=power_of_two(wide.span, 16, WIDEST_TILE),
    )


def _collect(shares: Tensor, bias: Tensor | None, y: Tensor, narrow: Grouping) -> None:
    tokens, features = y.shape
    feature_tiles = triton.cdiv(features, COLLECT_FEATURES)
    _add_shares[(feature_tiles * triton.cdiv(tokens, COLLECT_TOKENS),)](
        shares,
        pointer(bias, shares),
        y,
        narrow.offsets,
        pointer(narrow.slots, narrow.across),
        shares.stride(0),
        *y.stride(),
        tokens,
        features,
        feature_tiles,
        SPAN=narrow.span,
        ORDERED=narrow.slots is None,
        HAS_BIAS=bias is not None,
        BLOCK_TOKENS=COLLECT_TOKENS,
        BLOCK_FEATURES=COLLECT_FEATURES,
    )


def _tiles(tokens: int, warps: int, stages: int) -> triton.Config:
    return triton.Config({"BLOCK_TOKENS": tokens}, num_warps=warps, num_stages=stages)


@tuned(
    [_tiles(64, 4, 2), _tiles(64, 4, 3), _tiles(128, 4, 2), _tiles(128, 8, 2), _tiles(256, 8, 2)],
    columns="BLOCK_RUN",
)
@triton.jit
def _spread_dot(  # type: ignore[no-untyped-def]
    x,
    values,
    shares,
    offsets,
    slots,
    items,
    x_token,
    x_feature,
    share_stride,
    tokens,
    item_count,
    limit,
    bucket,
    groups,
    SPAN: tl.constexpr,
    RUN: tl.constexpr,
    SPAN_STRIDE: tl.constexpr,
    RUN_STRIDE: tl.constexpr,
    ORDERED: tl.constexpr,
    SPLIT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_RUN: tl.constexpr,
    BLOCK_SPAN: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
):
    """Each program writes the shares of one item for a tile of tokens, as shares [slot * RUN + run, token]."""
    program = tl.program_id(0)
    group, first, last, _ = item_range(items, offsets, program % item_count, item_count, limit, SPLIT)
    if group < 0:
        return
    token = (program // item_count) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    at = tl.arange(0, BLOCK_RUN)
    within = at < (last - first) * RUN
    place = first + at // RUN
    run = at % RUN
    slot = place if ORDERED else tl.load(slots + place, mask=within, other=0)
    block = slot.to(tl.int64) * (SPAN * RUN) + run * RUN_STRIDE
    accumulator = tl.zeros([BLOCK_RUN, BLOCK_TOKENS], tl.float32)
    for ahead in range(0, SPAN, BLOCK_SPAN):
        span = ahead + tl.arange(0, BLOCK_SPAN)
        weights = tl.load(
            values + block[:, None] + span[None, :] * SPAN_STRIDE,
            mask=within[:, None] & (span < SPAN)[None, :],
            other=0.0,
        )
        feature = group.to(tl.int64) * SPAN + span
        inputs = tl.load(
            x + feature[:, None] * x_feature + token.to(tl.int64)[None, :] * x_token,
            mask=(span < SPAN)[:, None] & (token < tokens)[None, :],
            other=0.0,
        )
        accumulator = tl.dot(weights, inputs, accumulator, input_precision=PRECISION)
    to = shares + (slot.to(tl.int64) * RUN + run)[:, None] * share_stride + token[None, :]
    tl.store(to, accumulator.to(shares.dtype.element_ty), mask=within[:, None] & (token < tokens)[None, :])


@triton.jit
def _add_shares(  # type: ignore[no-untyped-def]
    shares,
    bias,
    y,
    offsets,
    slots,
    share_stride,
    y_token,
    y_feature,
    tokens,
    features,
    feature_tiles,
    SPAN: tl.constexpr,
    ORDERED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
):
    """Each program computes a tile of outputs, each the sum of its shares in the order of the blocks."""
    feature = (tl.program_id(0) % feature_tiles) * BLOCK_FEATURES + tl.arange(0, BLOCK_FEATURES)
    token = (tl.program_id(0) // feature_tiles) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    exists = feature < features
    first = tl.load(offsets + feature // SPAN, mask=exists, other=0)
    last = tl.load(offsets + feature // SPAN + 1, mask=exists, other=0)
    total = tl.zeros([BLOCK_FEATURES, BLOCK_TOKENS], tl.float32)
    for ahead in range(tl.max(last - first)):
        place = first + ahead
        slot = place if ORDERED else tl.load(slots + place, mask=place < last, other=0)
        share = slot.to(tl.int64) * SPAN + feature % SPAN
        total += tl.load(
            shares + share[:, None] * share_stride + token[None, :],
            mask=(place < last)[:, None] & (token < tokens)[None, :],
            other=0.0,
        ).to(tl.float32)
    if HAS_BIAS:
        total += tl.load(bias + feature, mask=exists, other=0.0).to(tl.float32)[:, None]
    to = y + token.to(tl.int64)[None, :] * y_token + feature[:, None] * y_feature
    tl.store(to, total.to(y.dtype.element_ty), mask=exists[:, None] & (token < tokens)[None, :])
