"""The three products, each computed by the kernel that suits the shape of the blocks best.

A tensor-core tile is 16 numbers wide. If the blocks are narrower than `TENSOR_CORE_SIDE` on the side of the outputs,
they fill too little of a tile; if their other side is wide enough, `spread_product` goes by that side instead.
"""

from __future__ import annotations

from torch import Tensor

from evergraft.sparse.products.gpu.gather import gather_product
from evergraft.sparse.products.gpu.grouping import by_columns, by_rows
from evergraft.sparse.products.gpu.sample import sampled_product
from evergraft.sparse.products.gpu.spread import spread_product
from evergraft.sparse.topology import BlockTopology

TENSOR_CORE_SIDE = 8  # a side of a block as long as this is worth padding to the 16 of a tensor-core tile


def forward(x: Tensor, values: Tensor, topology: BlockTopology, bias: Tensor | None) -> Tensor:
    """Compute x W^T + bias: by block rows, unless the blocks are low and wide.

    Args:
        x: [tokens, in_features].
        values: [active, R, C].
        topology: which blocks of W are active.
        bias: [out_features], or None.

    Returns:
        [tokens, out_features].
    """
    height, width = topology.block
    values, bias = values.contiguous(), None if bias is None else bias.contiguous()
    if height < TENSOR_CORE_SIDE <= width:
        return spread_product(x, values, bias, by_columns(topology), by_rows(topology))
    return gather_product(x, values, bias, by_rows(topology))


def input_gradient(grad: Tensor, values: Tensor, topology: BlockTopology) -> Tensor:
    """Compute grad W: by block columns, unless the blocks are tall and narrow.

    Args:
        grad: [tokens, out_features].
        values: [active, R, C].
        topology: which blocks of W are active.

    Returns:
        [tokens, in_features].
    """
    height, width = topology.block
    values = values.contiguous()
    if width < TENSOR_CORE_SIDE <= height:
        return spread_product(grad, values, None, by_rows(topology), by_columns(topology))
    return gather_product(grad, values, None, by_columns(topology))


def weight_gradient(grad: Tensor, x: Tensor, topology: BlockTopology) -> Tensor:
    """Compute the active blocks of grad^T x: features are gathered on the shorter side of the blocks.

    Args:
        grad: [tokens, out_features].
        x: [tokens, in_features].
        topology: which blocks of W are active.

    Returns:
        [active, R, C].
    """
    if topology.block[0] >= topology.block[1]:
        return sampled_product(x, grad, by_rows(topology), topology.block)
    return sampled_product(grad, x, by_columns(topology), topology.block)
