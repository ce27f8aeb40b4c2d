"""Give every layer the density that is asked for."""

from __future__ import annotations

from collections.abc import Mapping

from evergraft.sparse.allocation import LayerGrid
from evergraft.sparse.grid import active_count


def uniform(layers: Mapping[str, LayerGrid]) -> dict[str, int]:
    """Give each layer round(density * positions) blocks, at least 1, as the paper does (docs/method.md, section 2)."""
    return {name: active_count(grid.positions, grid.density) for name, grid in layers.items()}
