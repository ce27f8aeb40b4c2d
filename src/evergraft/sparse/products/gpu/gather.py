"""All outputs of a group of blocks at once: the inputs that its blocks meet are gathered into tensor-core tiles.

The blocks of a group, laid side by side, form a matrix [run * blocks, span]. For a tile of tokens a program gathers the
inputs that they meet and multiplies the two. So blocks of any shape fill the depth of a tile: 64 blocks of 64x1 fill a
depth of 64 just as four blocks of 16x16 do. The module `grouping` defines group, span, run and place.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from evergraft.sparse.products.gpu.grouping import Grouping
from evergraft.sparse.products.gpu.transpose import NARROW, readable, transposed
from evergraft.sparse.products.gpu.tuning import bucket, tuned
from evergraft.sparse.products.gpu.work import (
    Work,
    divide,
    dot_precision,
    item_range,
    pointer,
    power_of_two,
    widest_tile,
)

NARROWEST_DOT = 8  # the outputs in a group that are worth a tensor core; with fewer, most of a tile would be padding
TOKENS_A_SHARE = 1024  # a group is split when it holds more than tokens / this times the blocks of the mean group
REDUCE_TOKENS, REDUCE_SPAN = 64, 128


def gather_product(x: Tensor, values: Tensor, bias: Tensor | None, grouping: Grouping) -> Tensor:
    """Multiply x by the blocks, and add the bias.

    The partial results of groups that are split take at most 8 * max(TOKENS_A_SHARE, tokens / 2) bytes for each output.

    Args:
        x: [tokens, features on the other side of the groups], of any strides.
        values: [active, R, C], contiguous.
        bias: [groups * span], contiguous, or None.
        grouping: the blocks grouped by outputs.

    Returns:
        [tokens, groups * span], contiguous, of the dtype of x.
    """
    tokens, features = x.shape[0], grouping.groups * grouping.span
    narrow = grouping.span < NARROW
    y = x.new_empty(features, tokens).t() if narrow else x.new_empty(tokens, features)
    if tokens:
        work = divide(grouping, _limit(tokens, grouping))
        partials = values.new_empty(work.partial_count, tokens, grouping.span, dtype=torch.float32)
        _multiply(readable(x, grouping.run), values, bias, y, partials, grouping, work)
        if work.splits is not None:
            _reduce(partials, bias, y, grouping, work.splits)
    return transposed(y.t()) if narrow else y


def _limit(tokens: int, grouping: Grouping) -> int:
    """The most blocks of a group that one program takes; many tokens make enough programs without splitting groups."""
    mean: int = triton.cdiv(grouping.active, grouping.groups)
    return mean * max(2, tokens // TOKENS_A_SHARE)


def _multiply(
    x: Tensor, values: Tensor, bias: Tensor | None, y: Tensor, partials: Tensor, grouping: Grouping, work: Work
) -> None:
    tokens, span = x.shape[0], grouping.span
    dot = span >= NARROWEST_DOT
    block_span = power_of_two(span, 16 if dot else 1, widest_tile(x))
    span_tiles = triton.cdiv(span, block_span)

    def programs(tile: dict[str, int]) -> tuple[int]:
        item_sets, token_tiles = triton.cdiv(work.item_count, tile["ITEMS"]), triton.cdiv(tokens, tile["BLOCK_TOKENS"])
        return (span_tiles * item_sets * token_tiles,)

    kernel = _gather_dot if dot else _gather_narrow
    kernel[programs](
        x,
        values,
        pointer(bias, values),
        y,
        partials,
        grouping.offsets,
        grouping.across,
        pointer(grouping.slots, grouping.across),
        pointer(work.items, grouping.offsets),
        *x.stride(),
        *y.stride(),
        tokens,
        work.item_count,
        work.limit,
        bucket=bucket(tokens),
        groups=grouping.groups,
        SPAN=span,
        RUN=grouping.run,
        SPAN_STRIDE=grouping.span_stride,
        RUN_STRIDE=grouping.run_stride,
        ORDERED=grouping.slots is None,
        SPLIT=work.items is not None,
        HAS_BIAS=bias is not None,
        PRECISION=dot_precision(x),
        BLOCK_SPAN=block_span,
    )


def _reduce(partials: Tensor, bias: Tensor | None, y: Tensor, grouping: Grouping, splits: Tensor) -> None:
    tokens, split_count = y.shape[0], splits.shape[1]
    block_span = power_of_two(grouping.span, 1, REDUCE_SPAN)
    tiles = triton.cdiv(grouping.span, block_span) * triton.cdiv(tokens, REDUCE_TOKENS)
    _add_partials[(split_count * tiles,)](
        partials,
        pointer(bias, partials),
        y,
        splits,
        *y.stride(),
        tokens,
        split_count,
        SPAN=grouping.span,
        HAS_BIAS=bias is not None,
        BLOCK_TOKENS=REDUCE_TOKENS,
        BLOCK_SPAN=block_span,
    )


def _tiles(tokens: int, depth: int, items: int, warps: int, stages: int) -> triton.Config:
    blocks = {"BLOCK_TOKENS": tokens, "BLOCK_DEPTH": depth, "ITEMS": items}
    return triton.Config(blocks, num_warps=warps, num_stages=stages)


# With several stages, inputs are copied ahead of time from the second-level cache, past the first. With one stage and
# many items a program, the inputs of its tokens stay in the first-level cache while item after item gathers from them.
@tuned(
    [
        _tiles(64, 64, 1, 4, 3),
        _tiles(128, 32, 1, 4, 4),
        _tiles(128, 64, 1, 4, 3),
        _tiles(128, 64, 1, 8, 3),
        _tiles(128, 128, 1, 8, 2),
        _tiles(256, 32, 1, 8, 4),
        _tiles(64, 64, 8, 4, 1),
        _tiles(64, 64, 32, 4, 1),
        _tiles(128, 64, 8, 8, 1),
        _tiles(128, 32, 32, 8, 1),
    ]
)
@triton.jit
def _gather_dot(  # type: ignore[no-untyped-def]
    x,
    values,
    bias,
    y,
    partials,
    offsets,
    across,
    slots,
    items,
    x_token,
    x_feature,
    y_token,
    y_feature,
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
    HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_SPAN: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
    ITEMS: tl.constexpr,
):
    """Each program multiplies a tile of tokens by the blocks of some items, one after the other, on tensor cores."""
    SPAN_TILES: tl.constexpr = (SPAN + BLOCK_SPAN - 1) // BLOCK_SPAN
    item_sets = (item_count + ITEMS - 1) // ITEMS
    program = tl.program_id(0) // SPAN_TILES
    token = (program // item_sets).to(tl.int64) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    span = (tl.program_id(0) % SPAN_TILES) * BLOCK_SPAN + tl.arange(0, BLOCK_SPAN)
    for ahead in range(ITEMS):
        item = program % item_sets * ITEMS + ahead
        group, first, last, whole = item_range(items, offsets, item, item_count, limit, SPLIT)
        if group >= 0:
            total = tl.zeros([BLOCK_TOKENS, BLOCK_SPAN], tl.float32)
            for depth in range(0, (last - first) * RUN, BLOCK_DEPTH):
                inputs, weights = _load_tiles(
                    x, values, across, slots, x_token, x_feature, token, tokens, span, depth, first, last,
                    SPAN, RUN, SPAN_STRIDE, RUN_STRIDE, ORDERED, BLOCK_DEPTH,
                )  # fmt: skip
                total = tl.dot(inputs, weights, total, input_precision=PRECISION)
            _store(
                total, bias, y, partials, y_token, y_feature, token, tokens, span, item, group, whole, SPAN, HAS_BIAS
            )


@tuned(
    [
        _tiles(128, 8, 4, 4, 1),
        _tiles(64, 8, 64, 4, 1),
        _tiles(64, 16, 32, 4, 1),
        _tiles(128, 4, 64, 4, 1),
        _tiles(128, 8, 64, 8, 1),
        _tiles(256, 4, 1, 4, 1),
        _tiles(512, 2, 1, 4, 1),
    ],
    columns=None,
)
@triton.jit
def _gather_narrow(  # type: ignore[no-untyped-def]
    x,
    values,
    bias,
    y,
    partials,
    offsets,
    across,
    slots,
    items,
    x_token,
    x_feature,
    y_token,
    y_feature,
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
    HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_SPAN: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
    ITEMS: tl.constexpr,
):
    """Each program does what one of `_gather_dot` does, by float32 multiply-adds, for groups of few outputs."""
    item_sets = (item_count + ITEMS - 1) // ITEMS
    program = tl.program_id(0)
    token = (program // item_sets).to(tl.int64) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    span = tl.arange(0, BLOCK_SPAN)
    for ahead in range(ITEMS):
        item = program % item_sets * ITEMS + ahead
        group, first, last, whole = item_range(items, offsets, item, item_count, limit, SPLIT)
        if group >= 0:
            sums = tl.zeros([BLOCK_TOKENS, BLOCK_DEPTH, BLOCK_SPAN], tl.float32)
            for depth in range(0, (last - first) * RUN, BLOCK_DEPTH):
                inputs, weights = _load_tiles(
                    x, values, across, slots, x_token, x_feature, token, tokens, span, depth, first, last,
                    SPAN, RUN, SPAN_STRIDE, RUN_STRIDE, ORDERED, BLOCK_DEPTH,
                )  # fmt: skip
                sums += inputs.to(tl.float32)[:, :, None] * weights.to(tl.float32)[None, :, :]
            total = tl.sum(sums, axis=1)
            _store(
                total, bias, y, partials, y_token, y_feature, token, tokens, span, item, group, whole, SPAN, HAS_BIAS
            )


@triton.jit
def _load_tiles(  # type: ignore[no-untyped-def]
    x,
    values,
    across,
    slots,
    x_token,
    x_feature,
    token,
    tokens,
    span,
    depth,
    first,
    last,
    SPAN: tl.constexpr,
    RUN: tl.constexpr,
    SPAN_STRIDE: tl.constexpr,
    RUN_STRIDE: tl.constexpr,
    ORDERED: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
):
    """Load gathered inputs [tokens, depth] and the weights [depth, span] that they meet."""
    EVEN_RUN: tl.constexpr = min(RUN & -RUN, BLOCK_DEPTH)  # this many neighbours in depth are neighbours in x
    at = depth + tl.arange(0, BLOCK_DEPTH)
    within = at < (last - first) * RUN
    place = first + at // RUN
    run = at % RUN
    feature = tl.load(across + place, mask=within, other=0) * RUN + run
    feature = tl.max_contiguous(tl.multiple_of(feature, EVEN_RUN), EVEN_RUN).to(tl.int64)
    slot = place if ORDERED else tl.load(slots + place, mask=within, other=0)
    inputs = tl.load(
        x + token[:, None] * x_token + feature[None, :] * x_feature,
        mask=(token < tokens)[:, None] & within[None, :],
        other=0.0,
    )
    block = slot.to(tl.int64) * (SPAN * RUN) + run * RUN_STRIDE
    weights = tl.load(
        values + block[:, None] + span[None, :] * SPAN_STRIDE,
        mask=within[:, None] & (span < SPAN)[None, :],
        other=0.0,
    )
    return inputs, weights


@triton.jit
def _store(  # type: ignore[no-untyped-def]
    total,
    bias,
    y,
    partials,
    y_token,
    y_feature,
    token,
    tokens,
    span,
    item,
    group,
    whole,
    SPAN: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):
    """Write the outputs of a whole group to y, with the bias, or those of a part of a group to `partials`."""
    within = (token < tokens)[:, None] & (span < SPAN)[None, :]
    if whole:
        feature = group.to(tl.int64) * SPAN + span
        if HAS_BIAS:
            total += tl.load(bias + feature, mask=span < SPAN, other=0.0).to(tl.float32)[None, :]
        to = y + token[:, None] * y_token + feature[None, :] * y_feature
        tl.store(to, total.to(y.dtype.element_ty), mask=within)
    else:
        start = item.to(tl.int64) * tokens
        tl.store(partials + (start + token)[:, None] * SPAN + span[None, :], total, mask=within)


@triton.jit
def _add_partials(  # type: ignore[no-untyped-def]
    partials,
    bias,
    y,
    splits,
    y_token,
    y_feature,
    tokens,
    split_count,
    SPAN: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_SPAN: tl.constexpr,
):
    """Each program adds the partial results of one split group for a tile of tokens, always in the same order."""
    SPAN_TILES: tl.constexpr = (SPAN + BLOCK_SPAN - 1) // BLOCK_SPAN
    program = tl.program_id(0) // SPAN_TILES
    split = program % split_count
    group = tl.load(splits + split)
    if group < 0:
        return
    token = (program // split_count).to(tl.int64) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    span = (tl.program_id(0) % SPAN_TILES) * BLOCK_SPAN + tl.arange(0, BLOCK_SPAN)
    within = (token < tokens)[:, None] & (span < SPAN)[None, :]
    total = tl.zeros([BLOCK_TOKENS, BLOCK_SPAN], tl.float32)
    first = tl.load(splits + split_count + split).to(tl.int64)
    for part in range(tl.load(splits + 2 * split_count + split)):
        start = (first + part) * tokens
        total += tl.load(partials + (start + token)[:, None] * SPAN + span[None, :], mask=within, other=0.0)
    feature = group.to(tl.int64) * SPAN + span
    if HAS_BIAS:
        total += tl.load(bias + feature, mask=span < SPAN, other=0.0).to(tl.float32)[None, :]
    tl.store(y + token[:, None] * y_token + feature[None, :] * y_feature, total.to(y.dtype.element_ty), mask=within)
