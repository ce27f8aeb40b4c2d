"""First values as BERT's dense weights have them: a normal truncated at two standard deviations."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from evergraft.sparse.topology import BlockTopology


def normal(values: Tensor, topology: BlockTopology, std: float, generator: torch.Generator | None) -> None:
    """Draw values [active, R, C] from a normal of standard deviation `std`, truncated at two of them, in place.

    The deviation is not rescaled for sparsity, which the paper found to be worse (docs/method.md, section 2). It is
    drawn by the inverse of the normal distribution; `nn.init.trunc_normal_` holds several tensors of that size.
    """
    share = math.erf(math.sqrt(2))  # the part of a normal within two standard deviations
    values.uniform_(-share, share, generator=generator)
    values.erfinv_().mul_(math.sqrt(2) * std).clamp_(-2 * std, 2 * std)
