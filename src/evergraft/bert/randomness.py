"""Randomness as a function of position: no stream depends on workers, ranks or restarts."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a generator is for; each purpose has its own numbers at every position."""

    ORDER = 0
    PAIR = 1
    MASK = 2


def generator(purpose: Purpose, seed: int, epoch: int, index: int = 0) -> np.random.Generator:
    """The generator at one position: a counter-based Philox keyed by the seed, so that making one is cheap."""
    key = np.array([seed, (int(purpose) << 32) | epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, index, 0], np.uint64)))
