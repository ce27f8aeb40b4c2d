"""The random numbers of the native library, computed with numpy from their published definition."""

from __future__ import annotations

import numpy as np
import torch

_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


def philox(counters: np.ndarray, seed: int) -> np.ndarray:
    """Philox4x32-7 (Salmon et al., 2011) of 64-bit counters [n] -> words [4, n]."""
    words = [counters & _LOW, counters >> _HALF, *np.zeros((2, len(counters)), np.uint64)]
    key = [np.uint64(seed) & _LOW, np.uint64(seed) >> _HALF]
    for _ in range(7):
        a, b = np.uint64(0xD2511F53) * words[0], np.uint64(0xCD9E8D57) * words[2]
        words = [(b >> _HALF) ^ words[1] ^ key[0], b & _LOW, (a >> _HALF) ^ words[3] ^ key[1], a & _LOW]
        key = [(part + np.uint64(weyl)) & _LOW for part, weyl in zip(key, (0x9E3779B9, 0xBB67AE85), strict=True)]
    return np.stack(words)


def kept(shape: tuple[int, ...], seed: int, dropped: int) -> torch.Tensor:
    """Which elements native dropout keeps: those whose 16 bits are at least `dropped`."""
    count = int(np.prod(shape))
    draws = -(-count // 128)
    words = philox(np.arange(draws * 16, dtype=np.uint64), seed).reshape(4, draws, 16).transpose(1, 0, 2)
    halves = np.stack([words & np.uint64(0xFFFF), words >> np.uint64(16)], -1).reshape(-1)[:count]
    return torch.from_numpy(halves >= dropped).view(shape)
