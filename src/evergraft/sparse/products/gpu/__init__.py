"""The GPU backend: the three products as Triton kernels, for every block shape, without float atomics.

`gather` multiplies along the blocks of an output group, `spread` serves outputs too narrow for that, `sample` gives
the weight gradient; `grouping` says which blocks belong together and `work` divides them evenly. docs/gpu.md explains.
Nothing here needs Triton until a product is computed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from evergraft.sparse.topology import BlockTopology

name = "gpu"

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
OLDEST = (8, 0)  # compute capability of the first tensor cores that know bfloat16 and TF32


def supports(x: Tensor, values: Tensor) -> bool:
    """Tensors of one dtype, half precision or float32, on a GPU of compute capability 8.0 or newer."""
    usable = x.is_cuda and x.device == values.device and x.dtype == values.dtype and x.dtype in DTYPES
    return usable and torch.cuda.get_device_capability(x.device) >= OLDEST


def forward(x: Tensor, values: Tensor, topology: BlockTopology, bias: Tensor | None) -> Tensor:
    """X [tokens, in] -> y [tokens, out] = x W^T + bias."""
    from evergraft.sparse.products.gpu import products

    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        return products.forward(x, values, topology, bias)


def input_gradient(grad: Tensor, values: Tensor, topology: BlockTopology) -> Tensor:
    """Grad [tokens, out] -> [tokens, in] = grad W."""
    from evergraft.sparse.products.gpu import products

    with torch.cuda.device_of(grad):  # type: ignore[no-untyped-call]
        return products.input_gradient(grad, values, topology)


def weight_gradient(grad: Tensor, x: Tensor, topology: BlockTopology) -> Tensor:
    """Grad [tokens, out], x [tokens, in] -> [active, R, C]: the active blocks of grad^T x."""
    from evergraft.sparse.products.gpu import products

    with torch.cuda.device_of(grad):  # type: ignore[no-untyped-call]
        return products.weight_gradient(grad, x, topology)
