"""Place blocks uniformly at random, as the paper does (docs/method.md, section 2)."""

from __future__ import annotations

import numpy as np

from evergraft.sparse.allocation import Count


def random(rows: int, columns: int, count: Count, rng: np.random.Generator) -> np.ndarray:
    """Draw positions uniformly without replacement: in the whole matrix or, if counts are given, in each block row."""
    if isinstance(count, int):
        return rng.choice(rows * columns, size=count, replace=False, shuffle=False)
    chosen = [rng.choice(columns, size=size, replace=False, shuffle=False) for size in count]
    return np.concatenate([row * columns + columns_of for row, columns_of in enumerate(chosen)])
