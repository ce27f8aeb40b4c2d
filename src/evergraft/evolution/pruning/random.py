"""Prune blocks uniformly at random: the control for rules that look at the weights."""

from __future__ import annotations

import torch
from torch import Tensor

from evergraft.evolution.context import UpdateContext


def random(context: UpdateContext) -> Tensor:
    """Draw the slots of blocks uniformly, without replacement: int64 [count]."""
    slots = context.rng.choice(context.values.shape[0], size=context.count, replace=False, shuffle=False)
    return torch.from_numpy(slots).to(context.values.device)
