"""The GPU backend `gpu`: the three products as Triton kernels, for every block shape.

Without float atomics, sums are added in a fixed order, so that the same tiles give the same bits. `gather` computes
outputs from the blocks of a block row or block column, `spread` does so where these are too narrow for tensor cores,
and `sample` computes the weight gradient. `grouping` says which blocks belong together, `work` divides them evenly
among programs, and `tuning` measures which tiles are fastest. docs/gpu.md explains the kernels. This module itself
imports Triton only when the first product is computed.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from evergraft.sparse.topology import BlockTopology

name = "gpu"
BACKEND = sys.modules[__name__]

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
OLDEST = (8, 0)  # the compute capability of Ampere, whose tensor cores were the first with bfloat16 and TF32


def supports(x: Tensor, values: Tensor) -> bool:
    """Whether x and `values` have one dtype of `DTYPES` and lie on one GPU of compute capability 8.0 or newer.

    Without Triton the answer is no.
    """
    usable = x.is_cuda and x.device == values.device and x.dtype == values.dtype and x.dtype in DTYPES
    return usable and _has_triton() and torch.cuda.get_device_capability(x.device) >= OLDEST


def forward(x: Tensor, values: Tensor, topology: BlockTopology, bias: Tensor | None) -> Tensor:
    """Compute y = x W^T + bias.

    Args:
        x: [tokens, in_features], of a dtype in `DTYPES` and of any strides.
        values: [active, R, C], the active blocks of W [out_features, in_features].
        topology: which blocks of W are active.
        bias: [out_features], or None.

    Returns:
        [tokens, out_features], contiguous, of the dtype of x.
    """
    from evergraft.sparse.products.gpu import products

    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        return products.forward(x, values, topology, bias)


def input_gradient(grad: Tensor, values: Tensor, topology: BlockTopology) -> Tensor:
    """Compute grad W, the gradient of x.

    Args:
        grad: [tokens, out_features], the gradient of y, of a dtype in `DTYPES` and of any strides.
        values: [active, R, C], the active blocks of W [out_features, in_features].
        topology: which blocks of W are active.

    Returns:
        [tokens, in_features], contiguous, of the dtype of `grad`.
    """
    from evergraft.sparse.products.gpu import products

    with torch.cuda.device_of(grad):  # type: ignore[no-untyped-call]
        return products.input_gradient(grad, values, topology)


def weight_gradient(grad: Tensor, x: Tensor, topology: BlockTopology) -> Tensor:
    """Compute the active blocks of grad^T x, the gradient of `values`.

    Args:
        grad: [tokens, out_features], the gradient of y, of a dtype in `DTYPES` and of any strides.
        x: [tokens, in_features], of the dtype of `grad` and of any strides.
        topology: which blocks of W are active.

    Returns:
        [active, R, C], contiguous, of the dtype of `grad`.
    """
    from evergraft.sparse.products.gpu import products

    with torch.cuda.device_of(grad):  # type: ignore[no-untyped-call]
        return products.weight_gradient(grad, x, topology)


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None
