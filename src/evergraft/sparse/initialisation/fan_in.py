"""First values by the fan-in that exists, so that a sparse layer begins with the outputs of a dense one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from evergraft.sparse.initialisation.normal import normal
from evergraft.sparse.topology import BlockTopology


def fan_in(values: Tensor, topology: BlockTopology, std: float, generator: torch.Generator | None) -> None:
    """Draw values [active, R, C] from a truncated normal of standard deviation std / sqrt(density), in place.

    An output of a layer sums density * in_features products on average. With this deviation its variance is that of a
    dense layer whose weights have the deviation `std` (Dey et al. 2024, "Sparse maximal update parameterization",
    arXiv 2405.15743).
    """
    normal(values, topology, std / math.sqrt(topology.density), generator)
