"""How many blocks each layer of a model holds, by the allocation that its settings name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from operator import index

from evergraft.errors import EvergraftError, naming
from evergraft.settings import plain
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
            or too few or answers with something else, or an override that matches no layer.
    """
    grids = {name: _grid(name, *shape, config) for name, shape in shapes.items()}
    _check_overrides(shapes, config)
    with naming(f"allocation {config.allocation!r}"):
        answer = ALLOCATIONS.get(config.allocation)(grids)
        if not isinstance(answer, Mapping):
            raise EvergraftError(f"expected a count for each layer, as a dict; got {type(answer).__name__}")
        if strange := answer.keys() - grids.keys():
            raise EvergraftError(f"there is no layer {min(map(str, strange))} among those to be sparse")
        return {name: _count(name, answer.get(name, 0), grid) for name, grid in grids.items()}


def _grid(name: str, out_features: int, in_features: int, config: SparsityConfig) -> LayerGrid:
    density, block = config.of_layer(name)
    with naming(f"layer {name}"):
        return LayerGrid(*block_grid(out_features, in_features, block), block, density)


def _check_overrides(names: Iterable[str], config: SparsityConfig) -> None:
    """An override that matches no layer is a slip of the pen."""
    for pattern, override in config.overrides:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise EvergraftError(
                f"override {pattern}={override} matches none of the layers to be sparse: {', '.join(names)}"
            )


def _count(name: str, answer: object, grid: LayerGrid) -> Count:
    """A rule's answer for one layer as Python's own integers."""
    answer = plain(answer)
    try:
        if isinstance(answer, Iterable):
            rows = [index(count) for count in answer]
            if len(rows) == grid.rows and sum(rows) > 0 and all(0 <= count <= grid.columns for count in rows):
                return rows
        elif 0 < index(answer) <= grid.positions:  # type: ignore[arg-type]
            return index(answer)  # type: ignore[arg-type]
    except TypeError:
        pass
    raise EvergraftError(
        f"layer {name} gets {answer} blocks, of {grid.rows} x {grid.columns} positions; expected at least one and no "
        "more than there are, in all or for each block row: choose another density or allocation"
    )
