"""How much of the space of topologies a run has seen, and how much of what it grew was soon pruned."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from evergraft.sparse.topology import BlockTopology

_BIT_COUNTS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1)


class Exploration:
    """The history of one tensor's topology (docs/method.md, section 4).

    Attributes:
        seen: uint8 [ceil(blocks / 8)], one bit a position: was its block ever active? An eighth of a byte a block.
        newest: int64, the positions that the last update grew.
        grown, removed_new: blocks grown by all updates but the last, and those of them that the next update pruned.
    """

    def __init__(self, topology: BlockTopology) -> None:
        self.blocks = topology.blocks
        self.seen = np.zeros(-(-self.blocks // 8), np.uint8)
        self.newest = np.empty(0, np.int64)
        self.grown = 0
        self.removed_new = 0
        self._mark(topology.positions)

    @property
    def explored(self) -> float:
        """Explored degrees of freedom: the share of blocks that were ever active."""
        return self.explored_blocks / self.blocks

    @property
    def explored_blocks(self) -> int:
        """The number of blocks that were ever active."""
        return int(_BIT_COUNTS[self.seen].sum())

    def record(self, pruned: Tensor, grown: Tensor) -> tuple[int, int]:
        """Enter one update: the positions it pruned and grew.

        Returns:
            The number of blocks that the update before had grown, and how many of them this one pruned.
        """
        churn = len(self.newest), int(np.isin(self.newest, pruned.cpu().numpy()).sum())
        self.grown += churn[0]
        self.removed_new += churn[1]
        self.newest = grown.cpu().numpy()
        self._mark(grown)
        return churn

    def _mark(self, positions: Tensor) -> None:
        index = positions.cpu().numpy()
        np.bitwise_or.at(self.seen, index >> 3, np.left_shift(1, index & 7).astype(np.uint8))
