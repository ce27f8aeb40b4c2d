"""Where an update grows blocks: one rule a file, chosen by name (`EvolutionConfig.grow_by`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from evergraft.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from evergraft.evolution.context import UpdateContext


class GrowthRule(Protocol):
    """A rule that chooses where blocks grow.

    A rule may carry two attributes. With `uses_gradients = True` it is given `context.gradient`, and an update takes
    place one step after it has fallen due, with the gradients of that step. With `changes_count = True` it may return
    another number of positions than `context.count`, and the layer then holds more or fewer blocks than before.
    """

    def __call__(self, context: UpdateContext) -> Tensor:
        """Choose `context.count` positions.

        Returns:
            int64 [count], on the device of `context.values`: positions that are inactive in `context.topology`, none
            twice. Their blocks start at zero.
        """
        ...


GROWTH_RULES: Registry[GrowthRule] = Registry("growth rule", "evergraft.growth", __name__)


def uses_gradients(rule: object) -> bool:
    """Whether a growth rule looks at the gradients of blocks that do not exist yet."""
    return bool(getattr(rule, "uses_gradients", False))


def changes_count(rule: object) -> bool:
    """Whether a growth rule may grow more or fewer blocks than were pruned."""
    return bool(getattr(rule, "changes_count", False))
