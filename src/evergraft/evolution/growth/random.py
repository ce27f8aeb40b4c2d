"""Grow blocks uniformly at random, as the paper does (docs/method.md, section 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from evergraft.evolution.context import UpdateContext
from evergraft.evolution.inactive import inactive_positions


def random(context: UpdateContext) -> Tensor:
    """Draw inactive positions uniformly, without replacement: int64 [count].

    Blocks that the same update prunes still count as active, so that none of them grows again at once.
    """
    topology = context.topology
    ranks = context.rng.choice(topology.blocks - topology.active, size=context.count, replace=False, shuffle=False)
    return inactive_positions(topology, torch.from_numpy(ranks).to(topology.columns.device))
