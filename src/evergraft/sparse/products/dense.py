"""The reference products: scatter the blocks to a dense weight and multiply. Any shape, dtype and device; slow."""

import sys

import torch.nn.functional as F
from torch import Tensor

from evergraft.sparse.topology import BlockTopology

name = "dense"
BACKEND = sys.modules[__name__]


def supports(x: Tensor, values: Tensor) -> bool:
    """Whatever torch can multiply."""
    return True


def forward(x: Tensor, values: Tensor, topology: BlockTopology, bias: Tensor | None) -> Tensor:
    """X [tokens, in] -> y [tokens, out] = x W^T + bias."""
    return F.linear(x, scatter(values, topology), bias)


def input_gradient(grad: Tensor, values: Tensor, topology: BlockTopology) -> Tensor:
    """Grad [tokens, out] -> [tokens, in] = grad W."""
    return grad @ scatter(values, topology)


def weight_gradient(grad: Tensor, x: Tensor, topology: BlockTopology) -> Tensor:
    """Grad [tokens, out], x [tokens, in] -> [active, R, C]: the active blocks of grad^T x."""
    return gather(grad.t() @ x, topology)


def scatter(values: Tensor, topology: BlockTopology) -> Tensor:
    """Values [active, R, C] -> the dense matrix [out, in], zero where no block is active."""
    (rows, columns), (height, width) = _grid(topology), topology.block
    weight = values.new_zeros(rows, columns, height, width)
    weight[topology.rows, topology.columns.long()] = values
    return weight.transpose(1, 2).reshape(rows * height, columns * width)


def gather(weight: Tensor, topology: BlockTopology) -> Tensor:
    """A dense matrix [out, in] -> its active blocks [active, R, C]."""
    (rows, columns), (height, width) = _grid(topology), topology.block
    blocks = weight.view(rows, height, columns, width).transpose(1, 2)
    return blocks[topology.rows, topology.columns.long()]


def _grid(topology: BlockTopology) -> tuple[int, int]:
    return topology.row_offsets.shape[0] - 1, topology.transposed_offsets.shape[0] - 1
