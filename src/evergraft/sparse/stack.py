"""The topologies of several layers, one below the other: what their stacked matrices have in one product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from evergraft.sparse.layer import SparseLinear
from evergraft.sparse.topology import BlockTopology


@dataclass(frozen=True)
class Stack:
    """Topologies one below the other.

    Attributes:
        topology: of all their rows, those of the first one first.
        indices: the row offsets and the columns of each, as they were when the stack was made.
        out_features, active: the rows of each, and how many blocks it has.
    """

    topology: BlockTopology
    indices: tuple[tuple[Tensor, Tensor], ...]
    out_features: list[int]
    active: list[int]

    @classmethod
    def of(cls, topologies: Sequence[BlockTopology]) -> Stack:
        """Stack topologies of one block and one number of columns.

        Example:
            >>> topology = BlockTopology.from_positions(8, 16, (4, 4), torch.tensor([0, 1, 6]))
            >>> Stack.of([topology, topology]).topology.positions.tolist()
            [0, 1, 6, 8, 9, 14]
        """
        block, first = topologies[0].block, topologies[0].row_offsets[:1]
        active = [each.active for each in topologies]
        starts = accumulate(active[:-1], initial=0)
        offsets = [each.row_offsets[1:] + start for each, start in zip(topologies, starts, strict=True)]
        columns = torch.cat([each.columns for each in topologies])
        transposed_offsets = torch.stack([each.transposed_offsets for each in topologies]).sum(0, dtype=torch.int32)
        transposed_order = torch.argsort(columns, stable=True).to(torch.int32)
        topology = BlockTopology(block, torch.cat([first, *offsets]), columns, transposed_offsets, transposed_order)
        indices = zip((each.row_offsets.clone() for each in topologies), torch.split(columns, active), strict=True)
        return cls(topology, tuple(indices), [each.out_features for each in topologies], active)

    def consists_of(self, topologies: Sequence[BlockTopology]) -> bool:
        """Whether it was made of these. Contents are compared: whatever rewrites an index, however, is noticed."""
        return (
            len(self.indices) == len(topologies)
            and self.topology.in_features == topologies[0].in_features
            and self.topology.block == topologies[0].block
            and all(
                torch.equal(row_offsets, each.row_offsets) and torch.equal(columns, each.columns)
                for (row_offsets, columns), each in zip(self.indices, topologies, strict=True)
            )
        )


_STACKS: WeakKeyDictionary[SparseLinear, Stack] = WeakKeyDictionary()  # by the first layer


def stack_of(layers: Sequence[SparseLinear]) -> Stack:
    """The stack of the layers' topologies, which is kept until one of them changes or the first layer is gone."""
    topologies = [layer.topology for layer in layers]
    stack = _STACKS.get(layers[0])
    if stack is None or not stack.consists_of(topologies):
        stack = _STACKS[layers[0]] = Stack.of(topologies)
    return stack
