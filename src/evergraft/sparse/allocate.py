"""How many blocks each layer of a model holds, by the allocation that its settings name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evergraft.errors import EvergraftError
from evergraft.sparse.allocation import ALLOCATIONS, Count, LayerGrid
from evergraft.sparse.config import SparsityConfig
from evergraft.sparse.grid import block_grid


def allocate(shapes: Mapping[str, tuple[int, int]], config: SparsityConfig) -> dict[str, Count]:
    """The count of blocks of every layer that is to be sparse.

    Args:
        shapes: (out_features, in_features) of the layers, by name, in the model's order.
        config: density, block, overrides and the allocation's name.

    Raises:
        EvergraftError: a block that does not divide a layer, too many blocks, or a rule that allots a layer too many
            or too few.
    """
    grids = {name: _grid(name, *shape, config) for name, shape in shapes.items()}
    counts = dict(ALLOCATIONS.get(config.allocation)(grids))
    for name, grid in grids.items():
        rows = counts.get(name, 0)
        fits = 0 < rows <= grid.positions if isinstance(rows, int) else _rows_fit(rows, grid)
        if not fits:
            raise EvergraftError(
                f"allocation {config.allocation!r} gives layer {name} {rows} blocks, of {grid.rows} x {grid.columns} "
                "positions; expected at least one and no more than there are: choose another density or allocation"
            )
    return counts


def _grid(name: str, out_features: int, in_features: int, config: SparsityConfig) -> LayerGrid:
    density, block = config.of_layer(name)
    try:
        return LayerGrid(*block_grid(out_features, in_features, block), block, density)
    except EvergraftError as error:
        raise EvergraftError(f"layer {name}: {error}") from None


def _rows_fit(counts: Sequence[int], grid: LayerGrid) -> bool:
    within = all(0 <= count <= grid.columns for count in counts)
    return len(counts) == grid.rows and within and sum(counts) > 0
