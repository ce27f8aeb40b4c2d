"""The weight gradient: a dense product over tokens, computed at the active blocks only.

The blocks of a group share the `span` features of one operand. A program takes a few blocks of a group, gathers the
features that they meet in the other operand, and multiplies the two over tokens on tensor cores; the result is a tile
[blocks * run, span] of gradients. The module `grouping` defines group, span, run and place.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from evergraft.sparse.products.gpu.grouping import Grouping
from evergraft.sparse.products.gpu.transpose import readable
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

GATHERED = 128  # features that a program gathers; one block, if it is wider than this
PROGRAMS = 1024  # programs that keep a large GPU busy to the end; tokens are split into shares to get about as many
SHORTEST_SHARE = 512  # tokens in a share, at least
SUM_BLOCK = 1024
ALIGNED = 128  # a share is a multiple of this many tokens, so that every one starts on a boundary of memory


def sampled_product(gathered: Tensor, shared: Tensor, grouping: Grouping, block: tuple[int, int]) -> Tensor:
    """Multiply two operands over tokens, at the active blocks only.

    If the tokens are split into shares, the partial results take 4 bytes for each weight and share, which is at most
    `PROGRAMS` tiles of 64 KiB.

    Args:
        gathered: [tokens, features on the other side of the groups], of any strides.
        shared: [tokens, groups * span], of any strides and the dtype of `gathered`.
        grouping: the blocks grouped by the features of `shared`.
        block: (R, C).

    Returns:
        [active, R, C], contiguous, of the dtype of `gathered`.
    """
    tokens = gathered.shape[0]
    values = gathered.new_empty(grouping.active, *block)
    if tokens == 0:
        return values.zero_()
    work = divide(grouping, max(1, GATHERED // grouping.run))
    block_run = power_of_two(work.limit * grouping.run, 16, widest_tile(gathered))
    block_span = power_of_two(grouping.span, 16, widest_tile(gathered))
    tiles = triton.cdiv(work.limit * grouping.run, block_run) * triton.cdiv(grouping.span, block_span)
    share = triton.cdiv(triton.cdiv(tokens, _shares(tokens, tiles * work.item_count)), ALIGNED) * ALIGNED
    shares = triton.cdiv(tokens, share)
    partials = values if shares == 1 else values.new_empty(shares, *values.shape, dtype=torch.float32)
    _sample(gathered, shared, partials, grouping, work, share, tiles * work.item_count * shares, block_run, block_span)
    if shares > 1:
        grid = (triton.cdiv(values.numel(), SUM_BLOCK),)
        _sum_shares[grid](partials, values, values.numel(), shares, BLOCK=SUM_BLOCK)
    return values


def _shares(tokens: int, programs: int) -> int:
    """Into how many shares to split the tokens, given how many programs there are for each share."""
    return max(1, min(PROGRAMS // programs, tokens // SHORTEST_SHARE))


def _sample(
    gathered: Tensor,
    shared: Tensor,
    partials: Tensor,
    grouping: Grouping,
    work: Work,
    share: int,
    programs: int,
    block_run: int,
    block_span: int,
) -> None:
    gathered, shared = readable(gathered, grouping.run), readable(shared, grouping.span)
    tokens = gathered.shape[0]
    _sample_dot[(programs,)](
        gathered,
        shared,
        partials,
        grouping.offsets,
        grouping.across,
        pointer(grouping.slots, grouping.across),
        pointer(work.items, grouping.offsets),
        *gathered.stride(),
        *shared.stride(),
        tokens,
        share,
        work.item_count,
        work.limit,
        grouping.active,
        bucket=bucket(tokens),
        groups=grouping.groups,
        SPAN=grouping.span,
        RUN=grouping.run,
        SPAN_STRIDE=grouping.span_stride,
        RUN_STRIDE=grouping.run_stride,
        RUN_TILES=triton.cdiv(work.limit * grouping.run, block_run),
        ORDERED=grouping.slots is None,
        SPLIT=work.items is not None,
        PRECISION=dot_precision(gathered),
        BLOCK_RUN=block_run,
        BLOCK_SPAN=block_span,
    )


def _tiles(tokens: int, warps: int, stages: int) -> triton.Config:
    return triton.Config({"BLOCK_TOKENS": tokens}, num_warps=warps, num_stages=stages)


@tuned(
    [_tiles(64, 4, 3), _tiles(32, 4, 4), _tiles(64, 4, 4), _tiles(128, 4, 3), _tiles(64, 8, 3), _tiles(128, 8, 3)],
    columns=None,
)
@triton.jit
def _sample_dot(  # type: ignore[no-untyped-def]
    gathered,
    shared,
    partials,
    offsets,
    across,
    slots,
    items,
    gathered_token,
    gathered_feature,
    shared_token,
    shared_feature,
    tokens,
    share,
    item_count,
    limit,
    active,
    bucket,
    groups,
    SPAN: tl.constexpr,
    RUN: tl.constexpr,
    SPAN_STRIDE: tl.constexpr,
    RUN_STRIDE: tl.constexpr,
    RUN_TILES: tl.constexpr,
    ORDERED: tl.constexpr,
    SPLIT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_RUN: tl.constexpr,
    BLOCK_SPAN: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
):
    """Each program computes a tile of the gradients of one item over one share of the tokens."""
    SPAN_TILES: tl.constexpr = (SPAN + BLOCK_SPAN - 1) // BLOCK_SPAN
    EVEN_RUN: tl.constexpr = min(RUN & -RUN, BLOCK_RUN)  # this many neighbours in the tile are neighbours in `gathered`
    tile = tl.program_id(0) % (SPAN_TILES * RUN_TILES)
    program = tl.program_id(0) // (SPAN_TILES * RUN_TILES)
    group, first, last, _ = item_range(items, offsets, program % item_count, item_count, limit, SPLIT)
    if group < 0:
        return
    at = (tile // SPAN_TILES) * BLOCK_RUN + tl.arange(0, BLOCK_RUN)
    within = at < (last - first) * RUN
    place = first + at // RUN
    run = at % RUN
    feature = tl.load(across + place, mask=within, other=0) * RUN + run
    feature = tl.max_contiguous(tl.multiple_of(feature, EVEN_RUN), EVEN_RUN).to(tl.int64)
    span = (tile % SPAN_TILES) * BLOCK_SPAN + tl.arange(0, BLOCK_SPAN)
    shared_at = (group.to(tl.int64) * SPAN + span) * shared_feature

    share_index = (program // item_count).to(tl.int64)
    start = share_index * share
    stop = tl.minimum(start + share, tokens)
    accumulator = tl.zeros([BLOCK_RUN, BLOCK_SPAN], tl.float32)
    for ahead in range(0, share, BLOCK_TOKENS):
        token = start + ahead + tl.arange(0, BLOCK_TOKENS)
        left = tl.load(
            gathered + feature[:, None] * gathered_feature + token[None, :] * gathered_token,
            mask=within[:, None] & (token < stop)[None, :],
            other=0.0,
        )
        right = tl.load(
            shared + token[:, None] * shared_token + shared_at[None, :],
            mask=(token < stop)[:, None] & (span < SPAN)[None, :],
            other=0.0,
        )
        accumulator = tl.dot(left, right, accumulator, input_precision=PRECISION)

    slot = place if ORDERED else tl.load(slots + place, mask=within, other=0)
    weight = (share_index * active + slot) * (SPAN * RUN) + run * RUN_STRIDE
    tl.store(
        partials + weight[:, None] + span[None, :] * SPAN_STRIDE,
        accumulator.to(partials.dtype.element_ty),
        mask=within[:, None] & (span < SPAN)[None, :],
    )


@triton.jit
def _sum_shares(partials, values, size, shares, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Each program sums `BLOCK` weights over the shares, always in the same order."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for _ in range(shares):
        total += tl.load(partials + at, mask=at < size, other=0.0)
        partials += size
    tl.store(values + at, total.to(values.dtype.element_ty), mask=at < size)
