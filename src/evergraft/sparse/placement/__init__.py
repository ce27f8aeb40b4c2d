"""Where the first blocks of a layer lie: one rule a file, chosen by name (`SparsityConfig.placement`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from evergraft.registry import Registry

if TYPE_CHECKING:
    import numpy as np

    from evergraft.sparse.allocation import Count


class Placement(Protocol):
    """A rule that chooses the positions of a layer's first blocks."""

    def __call__(self, rows: int, columns: int, count: Count, rng: np.random.Generator) -> np.ndarray:
        """Choose positions.

        Args:
            rows, columns: the numbers of block rows and block columns.
            count: how many blocks the layer has, or how many each block row has, in order.
            rng: where all randomness of the rule comes from.

        Returns:
            int64 [blocks], in any order, none twice: `row * columns + column` of each block.
        """
        ...


PLACEMENTS: Registry[Placement] = Registry("placement", "evergraft.placement", __name__)
