"""The reference products: scatter the blocks to a dense weight and multiply. Any shape, dtype and device; slow."""

import sys

import torch.nn.functional as F
from torch import Tensor

from evergraft.sparse.topology import BlockTopology

name = "dense"
BACKEND = sys.modules[__name__]


def supports(x: Tensor, values: Tensor) -> bool:
    """Always True: these products take whatever torch can multiply."""
    return True


def forward(x: Tensor, values: Tensor, topology: BlockTopology, bias: Tensor | None) -> Tensor:
    """Compute x W^T + bias: x [tokens, in] -> [tokens, out]."""
    return F.linear(x, scatter(values, topology), bias)


def input_gradient(grad: Tensor, values: Tensor, topology: BlockTopology) -> Tensor:
    """Compute grad W: grad [tokens, out] -> [tokens, in]."""
    return grad @ scatter(values, topology)


def weight_gradient(grad: Tensor, x: Tensor, topology: BlockTopology) -> Tensor:
    """Compute the active blocks of grad^T x: grad [tokens, out], x [tokens, in] -> [active, R, C]."""
    return gather(grad.t() @ x, topology)


def scatter(values: Tensor, topology: BlockTopology) -> Tensor:
    """Put values [active, R, C] into a dense matrix [out, in], which is zero where no block is active."""
    (rows, columns), (height, width) = _grid(topology), topology.block
    weight = values.new_zeros(rows, columns, height, width)
    weight[topology.rows, topology.columns.long()] = values
    return weight.transpose(1, 2).reshape(rows * height, columns * width)


def gather(weight: Tensor, topology: BlockTopology) -> Tensor:
    """Take the active blocks [active, R, C] of a dense matrix [out, in]."""
    (rows, columns), (height, width) = _grid(topology), topology.block
    blocks = weight.view(rows, height, columns, width).transpose(1, 2)
    return blocks[topology.rows, topology.columns.long()]


def _grid(topology: BlockTopology) -> tuple[int, int]:
    return topology.row_offsets.shape[0] - 1, topology.transposed_offsets.shape[0] - 1
