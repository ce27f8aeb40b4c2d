"""Dynamic always-sparse training: nine of ten weights never exist, the pattern of the others evolves."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evergraft.errors import EvergraftError as EvergraftError
    from evergraft.evolution import TopologyUpdater as TopologyUpdater
    from evergraft.evolution.callback import TopologyCallback as TopologyCallback
    from evergraft.sparse.conversion import densify as densify
    from evergraft.sparse.conversion import sparse_layers as sparse_layers
    from evergraft.sparse.conversion import sparsify as sparsify
    from evergraft.sparse.layer import SparseLinear as SparseLinear
    from evergraft.sparse.topology import BlockTopology as BlockTopology

__version__ = "0.1.0"

# Imported on first use, so that the command line starts without waiting for torch.
_HOMES = {
    "BlockTopology": "sparse.topology",
    "EvergraftError": "errors",
    "SparseLinear": "sparse.layer",
    "TopologyCallback": "evolution.callback",
    "TopologyUpdater": "evolution.updater",
    "densify": "sparse.conversion",
    "sparse_layers": "sparse.conversion",
    "sparsify": "sparse.conversion",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'evergraft' has no attribute {name!r}")
    return getattr(import_module(f"evergraft.{_HOMES[name]}"), name)
