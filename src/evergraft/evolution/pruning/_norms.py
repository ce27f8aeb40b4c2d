"""Norms of blocks, and the blocks of the smallest ones."""

from __future__ import annotations

import torch
from torch import Tensor

from evergraft.evolution.context import UpdateContext


def block_norms(values: Tensor, order: float) -> Tensor:
    """The norm of each block: [active, R, C] -> float32 (float64 for float64 values) [active].

    Args:
        values: floating [active, R, C].
        order: the order of the norm over the weights of a block, such as 1, 2 or infinity.
    """
    blocks = values.detach().flatten(1)
    if blocks.dtype != torch.float64:
        blocks = blocks.float()
    norms: Tensor = torch.linalg.vector_norm(blocks, order, dim=1)
    return norms


def smallest(context: UpdateContext, order: float) -> Tensor:
    """The slots of the `context.count` blocks of the smallest norm; ties are broken by slot: int64 [count]."""
    return torch.argsort(block_norms(context.values, order), stable=True)[: context.count]
