"""How blocks are shared out among layers: one rule a file, chosen by name (`SparsityConfig.allocation`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from evergraft.registry import Registry

Count = int | Sequence[int]  # blocks of a layer: how many in all, or how many in each block row


@dataclass(frozen=True)
class LayerGrid:
    """The block positions of one layer.

    Attributes:
        rows, columns: the numbers of block rows and block columns.
        block: (R, C), weights of a block.
        density: the share of the positions that was asked for, in (0, 1].
    """

    rows: int
    columns: int
    block: tuple[int, int]
    density: float

    @property
    def positions(self) -> int:
        """The number of block positions."""
        return self.rows * self.columns


class Allocation(Protocol):
    """A rule that says how many blocks each layer holds."""

    def __call__(self, layers: Mapping[str, LayerGrid]) -> Mapping[str, Count]:
        """Share out blocks.

        Args:
            layers: the layers that are to be sparse, by name, in the model's order.

        Returns:
            For each layer the number of its blocks, at least 1, or a sequence with the number of blocks in each of its
            block rows. The positions are drawn at random within that.
        """
        ...


ALLOCATIONS: Registry[Allocation] = Registry("allocation", "evergraft.allocation", __name__)


def total(count: Count) -> int:
    """How many blocks a count is in all."""
    return count if isinstance(count, int) else sum(count)
