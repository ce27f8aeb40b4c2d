"""Place blocks so that all block rows hold equally many, and all block columns do."""

from __future__ import annotations

import numpy as np

from evergraft.sparse.allocation import Count
from evergraft.sparse.balance import balanced_positions, shared_out


def balanced(rows: int, columns: int, count: Count, rng: np.random.Generator) -> np.ndarray:
    """Choose positions at random under the condition that the numbers of any two block columns differ by one at most.

    Those of block rows do too, unless the allocation says how many each of them has. At random, a share
    (1 - density)^(out_features / R) of all inputs is read by no block: 43 % of those of a 128 to 128 layer in 16x1 at
    density 0.1. What computes these inputs learns nothing. Balanced, as few are left unread as the count allows.
    """
    of_rows = shared_out(np.zeros(rows, np.int64), count, rng) if isinstance(count, int) else np.array(count)
    return balanced_positions(of_rows, np.zeros(columns, np.int64), lambda row: np.empty(0, np.int64), rng)
