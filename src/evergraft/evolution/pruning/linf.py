"""Prune the blocks of the smallest L-infinity norm, that is, those whose largest weight is smallest."""

from __future__ import annotations

import torch
from torch import Tensor

from evergraft.evolution.context import UpdateContext
from evergraft.evolution.pruning._norms import smallest


def linf(context: UpdateContext) -> Tensor:
    """The slots of the blocks of the smallest L-infinity norm; ties are broken by slot: int64 [count]."""
    return smallest(context, torch.inf)
