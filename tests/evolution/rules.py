"""Rules called by themselves, as tests and slow references need them."""

from __future__ import annotations

import numpy as np
import torch

from evergraft import BlockTopology
from evergraft.evolution.context import UpdateContext
from evergraft.evolution.growth import GROWTH_RULES


def grow(topology: BlockTopology, count: int, rng: np.random.Generator) -> torch.Tensor:
    """Positions of `count` blocks that grow at random."""
    values = torch.zeros(topology.active, *topology.block)
    return GROWTH_RULES.get("random")(UpdateContext("layer", topology, values, count, rng))
