"""The active blocks of a weight, grouped by the block row or by the block column in which they lie."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from evergraft.sparse.topology import BlockTopology


@dataclass(frozen=True)
class Grouping:
    """An order of the active blocks in which the blocks of a group are neighbours.

    A group is a block row or a block column. It owns `span` neighbouring features on its side of the weight (the
    outputs of a block row, the inputs of a block column), and each of its blocks meets `run` neighbouring features on
    the other side. The *place* of a block is its rank in this order; its *slot* is its index in `values`.

    Attributes:
        offsets: int32 [groups + 1]; the places of group g are offsets[g] ... offsets[g + 1] - 1.
        across: int32 [active]; for each place, the block's index on the other side, as a block column or block row.
        slots: int32 [active]; for each place, the block's slot. None if every place is its own slot.
        span: the features that a group owns: R if groups are block rows, C if they are block columns.
        run: the features that a block meets on the other side: C or R.
        span_stride: the distance in `values` of two weights of a block that are neighbours along `span`.
        run_stride: the distance in `values` of two weights of a block that are neighbours along `run`.
        widest: the most blocks that a group can hold.
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
        """The number of groups, empty ones included."""
        return self.offsets.shape[0] - 1

    @property
    def active(self) -> int:
        """The number of active blocks."""
        return self.across.shape[0]


def by_rows(topology: BlockTopology) -> Grouping:
    """Group the blocks by block row, which is the order of their slots."""
    height, width = topology.block
    widest = topology.transposed_offsets.shape[0] - 1
    return Grouping(topology.row_offsets, topology.columns, None, height, width, width, 1, widest)


def by_columns(topology: BlockTopology) -> Grouping:
    """Group the blocks by block column; a kernel finds the block row of each, so that the host need not wait."""
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
    """Find the block row at each place by binary search: the last row whose offset is not above the block's slot."""
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
