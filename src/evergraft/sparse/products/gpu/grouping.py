"""The blocks of a weight grouped by the block row, or by the block column, that they lie in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from evergraft.sparse.topology import BlockTopology


@dataclass(frozen=True)
class Grouping:
    """One order of the blocks in which those of a group are neighbours.

    A group owns `span` neighbouring features of one side of the weight (the outputs of a block row, the inputs of a
    block column); each block of it meets `run` neighbouring features of the other side. A block's *place* is its rank
    in this order.

    Attributes:
        offsets: int32 [groups + 1]; the places of group g are offsets[g] ... offsets[g + 1] - 1.
        across: int32 [active]; at each place the block's number on the other side.
        slots: int32 [active], the slot at each place; None where places are slots.
        span, run: as above; (R, C) by rows, (C, R) by columns.
        span_stride, run_stride: elements between neighbours within a block of `values`.
        widest: the most blocks a group can hold.
    """

    offsets: Tensor
    across: Tensor
    slots: Tensor | None
    span: int
    run: int
    span_stride: int
    run_stride: int
    widest: int

    @property
    def groups(self) -> int:
        """Number of groups, empty ones included."""
        return self.offsets.shape[0] - 1

    @property
    def active(self) -> int:
        """Number of blocks."""
        return self.across.shape[0]


def by_rows(topology: BlockTopology) -> Grouping:
    """Blocks in the order of their slots: a group is a block row."""
    height, width = topology.block
    widest = topology.transposed_offsets.shape[0] - 1
    return Grouping(topology.row_offsets, topology.columns, None, height, width, width, 1, widest)


def by_columns(topology: BlockTopology) -> Grouping:
    """Blocks in transposed order: a group is a block column. The rows are found on the device."""
    height, width = topology.block
    rows = torch.empty_like(topology.columns)
    steps = (topology.row_offsets.shape[0] - 1).bit_length()
    grid = (triton.cdiv(topology.active, SEARCH_BLOCK),)
    _find_rows[grid](
        topology.row_offsets,
        topology.transposed_order,
        rows,
        topology.row_offsets.shape[0] - 1,
        topology.active,
        STEPS=steps,
        BLOCK=SEARCH_BLOCK,
    )
    widest = topology.row_offsets.shape[0] - 1
    return Grouping(topology.transposed_offsets, rows, topology.transposed_order, width, height, 1, width, widest)


SEARCH_BLOCK = 256


@triton.jit
def _find_rows(row_offsets, order, rows, row_count, active, STEPS: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """The block row of the slot at each place: a binary search for the last offset that is not above the slot."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    within = place < active
    slot = tl.load(order + place, mask=within, other=0)
    low = tl.zeros([BLOCK], tl.int32)
    high = low + row_count  # row_offsets[low] <= slot < row_offsets[high]
    for _ in tl.static_range(STEPS):
        middle = (low + high) // 2
        above = tl.load(row_offsets + middle) > slot
        high = tl.where(above, middle, high)
        low = tl.where(above, low, middle)
    tl.store(rows + place, low, mask=within)
