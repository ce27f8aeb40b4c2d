"""What a rule of pruning or growth is told about the layer that is being updated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from evergraft.errors import EvergraftError
from evergraft.sparse.topology import BlockTopology


def _no_gradient(positions: Tensor) -> Tensor:
    raise EvergraftError(
        "gradients are recorded for growth rules that ask for them alone; set uses_gradients = True on the rule"
    )


@dataclass(frozen=True)
class UpdateContext:
    """One layer in one topology update.

    Attributes:
        layer: the layer's name in the model.
        topology: the topology before the update. Blocks that the update prunes are still active in it.
        values: floating [active, R, C], the values before the update.
        count: how many blocks are to be exchanged, at most as many as are active and as are inactive.
        rng: where all randomness of a rule comes from: the same on every rank and after every restart.
        pruned: int64 [count], the positions that the update prunes; None for the pruning rule, which decides them.
        gradient: maps int64 [n] inactive positions to the gradient [n, R, C] that the loss of the step before has with
            respect to blocks there. Only growth rules with `uses_gradients = True` may call it.

    Example:
        >>> @GROWTH_RULES.register("first")  # a rule that takes the first free positions
        ... def first(context):
        ...     return inactive_positions(context.topology, torch.arange(context.count))
    """

    layer: str
    topology: BlockTopology
    values: Tensor
    count: int
    rng: np.random.Generator
    pruned: Tensor | None = None
    gradient: Callable[[Tensor], Tensor] = _no_gradient
