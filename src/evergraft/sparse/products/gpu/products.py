"""Which kernel computes which product of which block shape."""

from __future__ import annotations

from torch import Tensor

from evergraft.sparse.products.gpu.gather import gather_product
from evergraft.sparse.products.gpu.grouping import by_columns, by_rows
from evergraft.sparse.products.gpu.sample import sampled_product
from evergraft.sparse.products.gpu.spread import spread_product
from evergraft.sparse.topology import BlockTopology

TENSOR_CORE_SIDE = 8  # the narrowest side of a block worth padding to the 16 of a tensor-core tile


def forward(x: Tensor, values: Tensor, topology: BlockTopology, bias: Tensor | None) -> Tensor:
    """X [tokens, in] -> [tokens, out]: gathered by rows, unless the blocks are wide and low."""
    height, width = topology.block
    values, bias = values.contiguous(), None if bias is None else bias.contiguous()
    if height < TENSOR_CORE_SIDE <= width:
        return spread_product(x, values, bias, by_columns(topology), by_rows(topology))
    return gather_product(x, values, bias, by_rows(topology))


def input_gradient(grad: Tensor, values: Tensor, topology: BlockTopology) -> Tensor:
    """Grad [tokens, out] -> [tokens, in]: gathered by columns, unless the blocks are tall and narrow."""
    height, width = topology.block
    values = values.contiguous()
    if width < TENSOR_CORE_SIDE <= height:
        return spread_product(grad, values, None, by_rows(topology), by_columns(topology))
    return gather_product(grad, values, None, by_columns(topology))


def weight_gradient(grad: Tensor, x: Tensor, topology: BlockTopology) -> Tensor:
    """Grad [tokens, out], x [tokens, in] -> [active, R, C]: the narrower side of the blocks is gathered."""
    if topology.block[0] >= topology.block[1]:
        return sampled_product(x, grad, by_rows(topology), topology.block)
    return sampled_product(grad, x, by_columns(topology), topology.block)
