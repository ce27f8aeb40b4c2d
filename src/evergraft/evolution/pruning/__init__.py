"""Which blocks an update prunes: one rule a file, chosen by name (`EvolutionConfig.prune_by`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from evergraft.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from evergraft.evolution.context import UpdateContext


class PruningRule(Protocol):
    """A rule that chooses the blocks to prune."""

    def __call__(self, context: UpdateContext) -> Tensor:
        """Choose `context.count` blocks.

        Returns:
            int64 [count], their slots in `context.values`, on its device, no slot twice.
        """
        ...


PRUNING_RULES: Registry[PruningRule] = Registry("pruning rule", "evergraft.pruning", __name__)
