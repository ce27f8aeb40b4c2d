"""Dynamic always-sparse training: nine of ten weights never exist, the pattern of the others evolves.

The names in `__all__` are the public interface of evergraft. Everything else may change between versions.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evergraft.corpus.corpus import Corpus as Corpus
    from evergraft.corpus.preparation import prepare as prepare
    from evergraft.errors import EvergraftError as EvergraftError
    from evergraft.evolution.callback import TopologyCallback as TopologyCallback
    from evergraft.evolution.config import EvolutionConfig as EvolutionConfig
    from evergraft.evolution.context import UpdateContext as UpdateContext
    from evergraft.evolution.growth import GROWTH_RULES as GROWTH_RULES
    from evergraft.evolution.pruning import PRUNING_RULES as PRUNING_RULES
    from evergraft.evolution.updater import TopologyUpdater as TopologyUpdater
    from evergraft.finetuning.tune import finetune as finetune
    from evergraft.runs.recipe import Recipe as Recipe
    from evergraft.runs.result import RunResult as RunResult
    from evergraft.sparse.allocation import ALLOCATIONS as ALLOCATIONS
    from evergraft.sparse.config import SparsityConfig as SparsityConfig
    from evergraft.sparse.conversion import densify as densify
    from evergraft.sparse.conversion import sparse_layers as sparse_layers
    from evergraft.sparse.conversion import sparsify as sparsify
    from evergraft.sparse.initialisation import INITIALISATIONS as INITIALISATIONS
    from evergraft.sparse.layer import SparseLinear as SparseLinear
    from evergraft.sparse.placement import PLACEMENTS as PLACEMENTS
    from evergraft.sparse.products import BACKENDS as BACKENDS
    from evergraft.sparse.rates import scale_sparse_rate as scale_sparse_rate
    from evergraft.sparse.topology import BlockTopology as BlockTopology
    from evergraft.training.evaluate import evaluate as evaluate
    from evergraft.training.export import export as export
    from evergraft.training.pretrain import Interrupted as Interrupted
    from evergraft.training.pretrain import pretrain as pretrain
    from evergraft.training.pretrain import resume as resume

__version__ = "0.2.0"

# Imported on first use, so that the command line starts without waiting for torch.
_HOMES = {
    "ALLOCATIONS": "sparse.allocation",
    "BACKENDS": "sparse.products",
    "BlockTopology": "sparse.topology",
    "Corpus": "corpus.corpus",
    "EvergraftError": "errors",
    "EvolutionConfig": "evolution.config",
    "GROWTH_RULES": "evolution.growth",
    "INITIALISATIONS": "sparse.initialisation",
    "Interrupted": "training.pretrain",
    "PLACEMENTS": "sparse.placement",
    "PRUNING_RULES": "evolution.pruning",
    "Recipe": "runs.recipe",
    "RunResult": "runs.result",
    "SparseLinear": "sparse.layer",
    "SparsityConfig": "sparse.config",
    "TopologyCallback": "evolution.callback",
    "TopologyUpdater": "evolution.updater",
    "UpdateContext": "evolution.context",
    "densify": "sparse.conversion",
    "evaluate": "training.evaluate",
    "export": "training.export",
    "finetune": "finetuning.tune",
    "prepare": "corpus.preparation",
    "pretrain": "training.pretrain",
    "resume": "training.pretrain",
    "scale_sparse_rate": "sparse.rates",
    "sparse_layers": "sparse.conversion",
    "sparsify": "sparse.conversion",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'evergraft' has no attribute {name!r}")
    return getattr(import_module(f"evergraft.{_HOMES[name]}"), name)
