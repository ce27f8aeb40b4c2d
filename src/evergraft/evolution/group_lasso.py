"""Decoupled Group Lasso: an optional regulariser that pulls whole blocks towards zero."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from evergraft.sparse.config import INITIAL_STD
from evergraft.sparse.layer import SparseLinear


@torch.no_grad()
def apply_group_lasso(layers: Iterable[SparseLinear], learning_rate: float, strength: float) -> None:
    """Shrink every block, after an optimiser step (docs/method.md, section 2).

    W_ij -= lr * strength * w_std * sqrt(R C) * W_ij / (||block||_2 + eps), with w_std 0.02 and eps 1e-6.

    Args:
        layers: the layers whose values are shrunk, in place.
        learning_rate: the learning rate of the step just taken.
        strength: lambda in the formula of the method; 0 leaves the weights as they are.
    """
    for layer in layers:
        scale = learning_rate * strength * INITIAL_STD * math.sqrt(layer.block[0] * layer.block[1])
        norms = torch.linalg.vector_norm(layer.values, dim=(1, 2), keepdim=True)
        layer.values.sub_(scale * layer.values / (norms + 1e-6))
