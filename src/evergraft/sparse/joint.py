"""Layers that share an input, multiplied as one: their matrices are stacked, so that the input is read once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from evergraft.kernels.column_sums import column_sums
from evergraft.kernels.native import reads, serves
from evergraft.kernels.slices import joined
from evergraft.sparse.bare import is_bare
from evergraft.sparse.layer import SparseLinear
from evergraft.sparse.linear import autocast
from evergraft.sparse.products import choose_backend
from evergraft.sparse.products.cpu import CpuBackend
from evergraft.sparse.stack import Stack, stack_of


def joint_linear(x: Tensor, layers: Sequence[nn.Module]) -> tuple[Tensor, ...]:
    """Compute `tuple(layer(x) for layer in layers)`, with one product for all layers where that can be.

    It can be on the CPU, by the native products, for sparse layers of one block, dtype and backend that all have a bias
    or all have none. The outputs are then slices of one tensor [..., sum of out_features], and what takes them may
    give their gradients as such slices too: they are not copied. Outputs have the bits that the layers by themselves
    compute (where densities differ so much that another kernel suits the stack, they differ by rounding). The input
    gradient is summed over all layers before it is rounded, and sums of weight gradients may take the tokens in other
    groups. It can be differentiated once.

    Otherwise each layer is called: if one of them is another module or has hooks, under `torch.compile`, tracing and
    `torch.func`, on a GPU, and for tensors that do not fit each other.

    Args:
        x: floating [..., in_features].
        layers: modules that take x.

    Returns:
        The output of each layer [..., out_features], in their order.

    Example:
        >>> query, key, value = (SparseLinear.random(64, 64, seed=seed) for seed in range(3))
        >>> [y.shape for y in joint_linear(torch.randn(8, 64), (query, key, value))]
        [torch.Size([8, 64]), torch.Size([8, 64]), torch.Size([8, 64])]
    """
    bare = [layer for layer in layers if is_bare(layer, SparseLinear)] if serves(x) else []
    if len(bare) == len(layers) > 1 and not is_in_torch_dispatch_mode() and _fit_together(bare, x):
        values = [layer.values for layer in bare]
        biases = [layer.bias for layer in bare if layer.bias is not None]
        x, *parameters = autocast(x, *values, *biases)
        backend = bare[0].backend
        if isinstance(choose_backend(backend, x, parameters[0]), CpuBackend):
            columns = [layer.columns for layer in bare]
            return _JointLinear.apply(x, stack_of(bare), columns, backend, *parameters)  # type: ignore[no-any-return, no-untyped-call]
    return tuple(layer(x) for layer in layers)


def _fit_together(layers: Sequence[SparseLinear], x: Tensor) -> bool:
    """Whether one product can compute these layers of x: they are of one kind, and all their tensors fit."""
    kinds = {(layer.block, layer.topology.in_features, layer.backend, layer.bias is None) for layer in layers}
    dtype = layers[0].values.dtype if torch.is_autocast_enabled("cpu") else x.dtype
    return (
        len(kinds) == 1 and x.shape[-1] == layers[0].topology.in_features and all(_fits(each, dtype) for each in layers)
    )


def _fits(layer: SparseLinear, dtype: torch.dtype) -> bool:
    """Whether the parameters of a layer are plain tensors on the CPU, of this dtype, and fit its topology there."""
    topology, values, bias = layer.topology, layer.values, layer.bias
    return (
        topology.columns.device.type == "cpu"
        and reads(values)
        and values.dtype == dtype
        and values.shape == (topology.active, *topology.block)
        and (bias is None or (reads(bias) and bias.dtype == dtype and bias.shape == (topology.out_features,)))
    )


class _JointLinear(torch.autograd.Function):
    """x times the stacked matrices, one output for each layer. It takes the values of all layers, then the biases.

    The layers' own values and columns are saved, so that autograd notices if one is rewritten before backward.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, stack: Stack, columns: list[Tensor], backend: str, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        values, biases = parameters[: len(stack.active)], parameters[len(stack.active) :]
        rows, stacked = x.reshape(-1, x.shape[-1]), torch.cat(values)
        product = choose_backend(backend, rows, stacked).forward
        y = product(rows, stacked, stack.topology, torch.cat(biases) if biases else None)
        ctx.save_for_backward(rows, *values, *columns)
        ctx.shape, ctx.stack, ctx.backend = x.shape, stack, backend
        outputs = torch.unsafe_split_with_sizes(y.view(*x.shape[:-1], y.shape[-1]), stack.out_features, -1)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        stack: Stack = ctx.stack
        rows, *saved = ctx.saved_tensors
        needs_x, _, _, _, *needed = ctx.needs_input_grad
        slices = joined(grads)
        grad = torch.cat(grads, -1) if slices is None else slices
        grad = grad.reshape(-1, grad.shape[-1])
        values = torch.cat(saved[: len(stack.active)])
        backend = choose_backend(ctx.backend, grad, values)
        return (
            backend.input_gradient(grad, values, stack.topology).view(ctx.shape) if needs_x else None,
            *[None] * 3,
            *_needed(stack.active, needed, lambda: backend.weight_gradient(grad, rows, stack.topology)),
            *_needed(stack.out_features, needed[len(stack.active) :], lambda: column_sums(grad)),
        )


def _needed(sizes: list[int], needed: Sequence[bool], gradient: Callable[[], Tensor]) -> list[Tensor | None]:
    """The parts of a gradient, of these sizes, that are needed; if none is, it is not computed."""
    some = needed[: len(sizes)]
    parts = torch.split(gradient(), sizes) if any(some) else [None] * len(some)
    return [part if need else None for part, need in zip(parts, some, strict=True)]
