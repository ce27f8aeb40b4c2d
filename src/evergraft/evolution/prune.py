"""Which blocks an update prunes: those of the smallest norm."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from evergraft.errors import EvergraftError

PruneBy = Literal["l1", "l2", "linf", "random"]


def check_prune_by(name: str) -> PruneBy:
    """Return `name`.

    Raises:
        EvergraftError: an unknown criterion.
    """
    if name not in get_args(PruneBy):
        raise EvergraftError(f"prune_by must be one of {', '.join(get_args(PruneBy))}; got {name!r}")
    return name  # type: ignore[return-value]


def prune(values: Tensor, count: int, by: PruneBy, rng: np.random.Generator) -> Tensor:
    """The slots of the `count` blocks to prune.

    Args:
        values: [active, R, C].
        count: how many, at most `active`.
        by: `l1` (METHOD: best), `l2` or `linf` norm of a block, smallest first, ties by slot; or `random`.
        rng: used by `random` alone.

    Returns:
        int64 [count], on the device of `values`.
    """
    if by == "random":
        slots = rng.choice(values.shape[0], size=count, replace=False, shuffle=False)
        return torch.from_numpy(slots).to(values.device)
    return torch.argsort(block_norms(values, by), stable=True)[:count]


def block_norms(values: Tensor, by: PruneBy) -> Tensor:
    """The norm of each block: [active, R, C] -> float32 (float64 for float64 values) [active]."""
    blocks = values.detach().flatten(1)
    if blocks.dtype != torch.float64:
        blocks = blocks.float()
    norms: Tensor = torch.linalg.vector_norm(blocks, {"l1": 1, "l2": 2, "linf": torch.inf}[by], dim=1)
    return norms
