"""Dynamic always-sparse training: nine of ten weights never exist, the pattern of the others evolves."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evergraft.callback import TopologyCallback as TopologyCallback
    from evergraft.conversion import densify as densify
    from evergraft.conversion import sparse_layers as sparse_layers
    from evergraft.conversion import sparsify as sparsify
    from evergraft.errors import EvergraftError as EvergraftError
    from evergraft.evolution import TopologyUpdater as TopologyUpdater
    from evergraft.layer import SparseLinear as SparseLinear
    from evergraft.topology import BlockTopology as BlockTopology

__version__ = "0.1.0"

# Imported on first use, so that the command line starts without waiting for torch.
_HOMES = {
    "BlockTopology": "topology",
    "EvergraftError": "errors",
    "SparseLinear": "layer",
    "TopologyCallback": "callback",
    "TopologyUpdater": "evolution",
    "densify": "conversion",
    "sparse_layers": "conversion",
    "sparsify": "conversion",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'evergraft' has no attribute {name!r}")
    return getattr(import_module(f"evergraft.{_HOMES[name]}"), name)
