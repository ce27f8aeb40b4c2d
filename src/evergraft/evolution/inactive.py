"""The inactive positions of a topology by rank, without a list of them."""

from __future__ import annotations

import torch
from torch import Tensor

from evergraft.sparse.topology import BlockTopology


def inactive_positions(topology: BlockTopology, ranks: Tensor) -> Tensor:
    """The inactive positions of these ranks among all inactive ones, in ascending order of position.

    Before the active position of slot k lie `positions[k] - k` inactive ones; so rank r lies after as many active
    positions as have at most r inactive ones before them.

    Args:
        topology: which blocks are active.
        ranks: int64 [n], in [0, blocks - active).

    Returns:
        int64 [n], on the device of the topology.
    """
    before = topology.positions - torch.arange(topology.active, device=ranks.device)
    return ranks + torch.searchsorted(before, ranks, right=True)
