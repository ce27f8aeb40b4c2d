"""Prune the blocks of the smallest L-infinity norm, that is of the smallest largest weight."""

from __future__ import annotations

import torch
from torch import Tensor

from evergraft.evolution.context import UpdateContext
from evergraft.evolution.pruning._norms import smallest


def linf(context: UpdateContext) -> Tensor:
    """The slots of the blocks of the smallest L-infinity norm, ties by slot: int64 [count]."""
    return smallest(context, torch.inf)
