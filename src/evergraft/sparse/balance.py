"""Random positions that give block rows and block columns equal shares of blocks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

import numpy as np


def shared_out(loads: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Share out `count` blocks among owners that hold some, the least loaded first, so that loads become level.

    Args:
        loads: int64 [owners], what each holds already.
        count: how many to share out.
        rng: decides who gets one of those that are left when all others are level.

    Returns:
        int64 [owners], what each gets; they sum to `count`.

    Example:
        >>> shared_out(np.array([0, 2, 5]), 5, np.random.default_rng(0)).tolist()
        [3, 2, 0]
    """
    lowest_load = int(loads.min())
    levels = range(lowest_load, int(loads.max()) + count + 1)
    level = lowest_load + bisect_right(levels, count, key=lambda level: int(np.clip(level - loads, 0, None).sum())) - 1
    gets: np.ndarray = np.clip(level - loads, 0, None)
    lowest = rng.permutation(np.flatnonzero(loads + gets == level))  # more than are left, or the level would be higher
    gets[lowest[: count - int(gets.sum())]] += 1
    return gets


def balanced_positions(
    of_rows: np.ndarray,
    column_loads: np.ndarray,
    taken: Callable[[int], np.ndarray],
    rng: np.random.Generator,
) -> np.ndarray:
    """Choose positions row by row, in random order: in each row the columns that hold the fewest blocks.

    Args:
        of_rows: int64 [rows], how many positions each row is to get.
        column_loads: int64 [columns], how many blocks each column holds already.
        taken: the columns of a row that cannot be chosen, int64 [n].
        rng: decides the order of the rows, and between columns that hold equally many.

    Returns:
        int64 [n], positions `row * columns + column`, none twice; fewer than asked for where rows have no room.
    """
    columns, loads, chosen = len(column_loads), column_loads.copy(), []
    for row in rng.permutation(np.flatnonzero(of_rows)).tolist():
        order = loads + rng.random(columns)
        order[taken(row)] = np.inf
        room = int(np.isfinite(order).sum())
        wanted = min(int(of_rows[row]), room)
        fewest = np.argpartition(order, wanted - 1)[:wanted] if wanted else np.empty(0, np.int64)
        loads[fewest] += 1
        chosen.append(row * columns + fewest)
    return np.concatenate(chosen) if chosen else np.empty(0, np.int64)
