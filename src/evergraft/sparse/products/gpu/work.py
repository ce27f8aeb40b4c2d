"""Equal work for every program: groups of many blocks are split into items.

A kernel plans the split on the GPU, so that the host never waits for it. The module `grouping` defines group and place.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from evergraft.sparse.products.gpu.grouping import Grouping


@dataclass(frozen=True)
class Work:
    """Items of at most `limit` blocks each. A program takes one item at a time.

    The items of split groups come first, those of one group side by side. So the longest items start first, and the
    index of an item is also the index of its partial result. Only the GPU knows how many items and splits there are;
    the host knows upper bounds, and unused entries hold -1.

    Attributes:
        limit: the most blocks in an item.
        item_count: an upper bound of the number of items.
        items: int32 [2, item_count], the group of each item and its first place; None if every group is one item.
        splits: int32 [3, split_count], for each split group its index, its first item and the number of its items;
            None if every group is one item.
        partial_count: an upper bound of the number of items that belong to split groups.
    """

    limit: int
    item_count: int
    items: Tensor | None = None
    splits: Tensor | None = None
    partial_count: int = 0


def divide(grouping: Grouping, limit: int) -> Work:
    """Divide all groups, empty ones included, into items of at most `limit` blocks."""
    if limit >= grouping.widest:
        return Work(limit, grouping.groups)
    item_count = grouping.groups + grouping.active // limit
    split_count = grouping.active // (limit + 1)
    plan = grouping.offsets.new_full((2 * item_count + 3 * split_count,), -1)
    items = plan[: 2 * item_count].view(2, item_count)
    splits = plan[2 * item_count :].view(3, split_count)
    _divide[(1,)](grouping.offsets, items, splits, grouping.groups, item_count, split_count, limit, BLOCK=PLAN_BLOCK)
    # A group of n > limit blocks has at most 2 n / (limit + 1) items: two if n = limit + 1, and fewer per block above.
    return Work(limit, item_count, items, splits, min(item_count, 2 * grouping.active // (limit + 1)))


def pointer(tensor: Tensor | None, otherwise: Tensor) -> Tensor:
    """`tensor`, or if it is None any other tensor, for a kernel that then does not read it."""
    return otherwise if tensor is None else tensor


def power_of_two(size: int, least: int, most: int) -> int:
    """The smallest power of two that is not below `size`, clamped to [least, most]."""
    covering: int = triton.next_power_of_2(size)
    return max(least, min(most, covering))


def widest_tile(tensor: Tensor) -> int:
    """The columns of the widest tile; fewer for exact float32, which is multiplied outside the tensor cores."""
    return 64 if tensor.dtype == torch.float32 and dot_precision(tensor) == "ieee" else 128


def dot_precision(tensor: Tensor) -> str:
    """The `input_precision` of `tl.dot`: TF32 for float32 tensors if torch's own products may use it, else exact."""
    allowed = tensor.dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision == "tf32"
    return "tf32" if allowed else "ieee"


PLAN_BLOCK = 1024


@triton.jit
def item_range(items, offsets, item, item_count, limit, SPLIT: tl.constexpr):  # type: ignore[no-untyped-def]
    """The group of an item (-1 if there is no such item), its first place, its end, and whether it is a whole group."""
    exists = item < item_count
    group = tl.load(items + item, mask=exists, other=-1) if SPLIT else tl.where(exists, item, -1)
    known = tl.maximum(group, 0)
    group_first = tl.load(offsets + known)
    last = tl.load(offsets + known + 1)
    whole = last - group_first <= limit
    first = group_first
    if SPLIT:
        first = tl.load(items + item_count + item, mask=exists, other=0)
        last = tl.minimum(last, first + limit)
    return group, first, last, whole


@triton.jit
def _divide(offsets, items, splits, groups, item_count, split_count, limit, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """The only program counts the items of split groups, then gives every group its items in order."""
    split_items = 0
    for start in range(0, groups, BLOCK):
        parts = _parts(offsets, start, groups, limit, BLOCK)
        split_items += tl.sum(tl.where(parts > 1, parts, 0))
    next_split_item = 0
    next_item = split_items
    next_split = 0
    for start in range(0, groups, BLOCK):
        group = start + tl.arange(0, BLOCK)
        within = group < groups
        parts = _parts(offsets, start, groups, limit, BLOCK)
        split = (parts > 1).to(tl.int32)
        whole = within.to(tl.int32) - split
        item = tl.where(
            split == 1,
            next_split_item + tl.cumsum(split * parts) - parts,
            next_item + tl.cumsum(whole) - whole,
        )
        first = tl.load(offsets + group, mask=within, other=0)
        for part in range(tl.max(parts)):
            tl.store(items + item + part, group, mask=part < parts)
            tl.store(items + item_count + item + part, first + part * limit, mask=part < parts)
        rank = next_split + tl.cumsum(split) - split
        tl.store(splits + rank, group, mask=split == 1)
        tl.store(splits + split_count + rank, item, mask=split == 1)
        tl.store(splits + 2 * split_count + rank, parts, mask=split == 1)
        next_split_item += tl.sum(split * parts)
        next_item += tl.sum(whole)
        next_split += tl.sum(split)


@triton.jit
def _parts(offsets, start, groups, limit, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """The number of items of each of `BLOCK` groups from `start` on: at least one, and zero past the last group."""
    group = start + tl.arange(0, BLOCK)
    within = group < groups
    first = tl.load(offsets + group, mask=within, other=0)
    last = tl.load(offsets + group + 1, mask=within, other=0)
    return tl.where(within, tl.maximum((last - first + limit - 1) // limit, 1), 0)
