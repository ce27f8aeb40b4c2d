"""What a rule of pruning or growth is told about the layer that is being updated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from evergraft.sparse.topology import BlockTopology


@dataclass(frozen=True)
class UpdateContext:
    """One layer in one topology update.

    Attributes:
        layer: its name in the model.
        topology: before the update. Blocks that the update prunes are still active in it.
        values: floating [active, R, C], before the update.
        count: how many blocks are to be exchanged, at most as many as are active, and as are inactive.
        rng: where all randomness of a rule comes from: the same on every rank and after every restart.
        pruned: int64 [count], the positions that the update prunes; None for the pruning rule, which decides them.
        gradient: from int64 [n] inactive positions to the gradient [n, R, C] that the loss of the step before has with
            respect to blocks there; None unless the growth rule has `uses_gradients = True`.
    """

    layer: str
    topology: BlockTopology
    values: Tensor
    count: int
    rng: np.random.Generator
    pruned: Tensor | None = None
    gradient: Callable[[Tensor], Tensor] | None = None
