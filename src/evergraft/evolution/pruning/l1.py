"""Prune the blocks of the smallest L1 norm: the best of the paper's three norms (docs/method.md, section 2)."""

from __future__ import annotations

from torch import Tensor

from evergraft.evolution.context import UpdateContext
from evergraft.evolution.pruning._norms import smallest


def l1(context: UpdateContext) -> Tensor:
    """The slots of the blocks of the smallest L1 norm; ties are broken by slot: int64 [count]."""
    return smallest(context, 1)
