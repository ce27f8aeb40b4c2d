"""The peak of the machine as measured: the rate that the fastest dense product reaches on large square matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from evergraft.bench.timing import fastest
from evergraft.kernels.onednn import has_onednn, onednn_linear


@dataclass(frozen=True, order=True)
class Peak:
    """The highest rate that was measured.

    Attributes:
        gflops: GFLOP/s; a multiply-add counts as two operations.
        by: the library that reached it.
    """

    gflops: float
    by: str

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON holds it."""
        return {"gflops": self.gflops, "by": self.by}


def measured_peak(dtype: torch.dtype, device: str = "cpu", size: int = 2048, rounds: int = 3) -> Peak:
    """Time torch's own dense product and oneDNN's, and return the faster.

    torch multiplies by MKL in fp32, by oneDNN in bf16 and by cuBLAS on a GPU. The rate is that of a product of
    matrices and not of a loop of instructions, so the true peak of the machine lies a few percent higher.

    Args:
        dtype: the dtype of both matrices.
        device: `cpu` or `cuda`.
        size: the matrices are [size, size].
        rounds: how often each product is timed; its fastest time counts.
    """
    x, weight = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    tasks = {"torch": lambda: F.linear(x, weight)}
    if device == "cpu" and has_onednn(dtype):
        tasks["oneDNN"] = lambda: onednn_linear(x, weight)
    seconds = fastest(tasks, rounds, device=device)
    by = min(seconds, key=lambda name: seconds[name])
    return Peak(2 * size**3 / seconds[by] / 1e9, by)
