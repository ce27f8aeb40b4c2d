"""Grow blocks where block rows and block columns hold the fewest, first of all where they hold none."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from evergraft.evolution.context import UpdateContext
from evergraft.evolution.growth.random import random
from evergraft.sparse.balance import balanced_positions, shared_out


def balanced(context: UpdateContext) -> Tensor:
    """Choose inactive positions at random, so that rows and columns come to hold equally many blocks: int64 [count].

    A unit whose block row is empty has no input, and one whose block column is empty is read by nothing: neither
    learns. Blocks that the same update prunes do not count as held, yet do not grow again at once. Where rows have no
    room left, which takes a density near one half, the rest is drawn as the rule `random` does.
    """
    topology = context.topology
    assert context.pruned is not None
    columns = topology.transposed_offsets.shape[0] - 1
    active, pruned = topology.positions.cpu().numpy(), context.pruned.cpu().numpy()
    held = np.setdiff1d(active, pruned, assume_unique=True)
    rows = np.bincount(held // columns, minlength=topology.row_offsets.shape[0] - 1)
    loads = np.bincount(held % columns, minlength=columns)
    offsets = topology.row_offsets.tolist()
    grown = balanced_positions(
        shared_out(rows, context.count, context.rng),
        loads,
        lambda row: active[offsets[row] : offsets[row + 1]] % columns,
        context.rng,
    )
    lacking = context.count - len(grown)
    if lacking:
        others = random(context).cpu().numpy()
        grown = np.append(grown, np.setdiff1d(others, grown)[:lacking])
    return torch.from_numpy(grown).to(topology.columns.device)
