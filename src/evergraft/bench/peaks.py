"""The machine's peak, as measured: what the fastest dense product at hand reaches on a large square matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from evergraft.bench.timing import fastest
from evergraft.kernels.onednn import has_onednn, onednn_linear


@dataclass(frozen=True, order=True)
class Peak:
    """GFLOP/s (a multiply-add is two), and the library that reached them."""

    gflops: float
    by: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"gflops": self.gflops, "by": self.by}


def measured_peak(dtype: torch.dtype, device: str = "cpu", size: int = 2048, rounds: int = 3) -> Peak:
    """The best of torch's own product (MKL, or oneDNN in bf16; cuBLAS) and oneDNN's, on [size, size] matrices.

    A product of matrices, not an instruction loop: the true peak of the machine lies a few percent higher.
    """
    x, weight = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    tasks = {"torch": lambda: F.linear(x, weight)}
    if device == "cpu" and has_onednn(dtype):
        tasks["oneDNN"] = lambda: onednn_linear(x, weight)
    seconds = fastest(tasks, rounds, device=device)
    by = min(seconds, key=lambda name: seconds[name])
    return Peak(2 * size**3 / seconds[by] / 1e9, by)
