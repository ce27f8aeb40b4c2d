"""Which blocks an update grows: inactive ones, uniformly at random (METHOD: arXiv 2108.06277, section 2)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from evergraft.sparse.topology import BlockTopology


def grow(topology: BlockTopology, count: int, rng: np.random.Generator) -> Tensor:
    """Positions of `count` blocks that are inactive in `topology`, drawn uniformly without replacement.

    Blocks that the same update prunes are still active here, so growth never picks one of them.

    Returns:
        int64 [count], on the device of the topology.
    """
    ranks = rng.choice(topology.blocks - topology.active, size=count, replace=False, shuffle=False)
    device = topology.columns.device
    return _inactive(topology, torch.from_numpy(ranks).to(device))


def _inactive(topology: BlockTopology, ranks: Tensor) -> Tensor:
    """The inactive positions of these ranks among all inactive ones, without listing those.

    Before the active position of slot k lie `positions[k] - k` inactive ones; so rank r lies after as many active
    positions as have at most r inactive ones before them.
    """
    before = topology.positions - torch.arange(topology.active, device=ranks.device)
    return ranks + torch.searchsorted(before, ranks, right=True)
