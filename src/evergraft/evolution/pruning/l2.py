"""Prune the blocks of the smallest L2 norm."""

from __future__ import annotations

from torch import Tensor

from evergraft.evolution.context import UpdateContext
from evergraft.evolution.pruning._norms import smallest


def l2(context: UpdateContext) -> Tensor:
    """The slots of the blocks of the smallest L2 norm; ties are broken by slot: int64 [count]."""
    return smallest(context, 2)
