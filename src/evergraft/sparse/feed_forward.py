"""The feed-forward network of a transformer's layer, whose two matrices are sparse, as one differentiable function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from evergraft.kernels.column_sums import column_sums
from evergraft.kernels.gelu import gelu
from evergraft.kernels.native import serves
from evergraft.sparse.bare import is_bare
from evergraft.sparse.layer import SparseLinear
from evergraft.sparse.linear import autocast, is_watched
from evergraft.sparse.products import choose_backend, dense
from evergraft.sparse.products.cpu import CpuBackend, Weights
from evergraft.sparse.topology import INDICES, BlockTopology


def feed_forward(x: Tensor, up: nn.Module, down: nn.Module) -> Tensor:
    """Compute `down(gelu(up(x)))`.

    Two sparse layers on the native CPU backend are computed together, forward and backward, slab by slab of tokens
    (native/feed_forward.hpp), so that a slab's hidden numbers stay in the caches. For backward, up(x) alone is kept,
    and neither its GELU nor its slope. All numbers are the same as those of the three calls, bit for bit, but for the
    gradient of the bias of `up`, whose sum over the tokens is rounded otherwise. Where this cannot be done (other
    layers, backends or devices, hooks on a layer, graphs that are being traced, transforms of `torch.func`), the three
    calls are made.

    Args:
        x: floating [..., in_features of `up`].
        up, down: layers, of which the second takes what the first one gives. Both can be differentiated once.

    Returns:
        [..., out_features of `down`], the dtype of x (of autocast where that is on).

    Raises:
        EvergraftError: what the layers refuse.

    Example:
        >>> up, down = SparseLinear.random(64, 256), SparseLinear.random(256, 64)
        >>> feed_forward(torch.randn(8, 64), up, down).shape
        torch.Size([8, 64])
    """
    if is_bare(up, SparseLinear) and is_bare(down, SparseLinear):
        tensors = autocast(x, up.values, up.bias, down.values, down.bias)
        backend = _native_backend(up, down, *tensors)
        if backend is not None:
            keeps = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
            tokens, *parameters = tensors
            indices = (*up.topology.tensors(), *down.topology.tensors())
            y: Tensor = _SparseFeedForward.apply(  # type: ignore[no-untyped-call]
                tokens.reshape(-1, tokens.shape[-1]), *parameters, keeps, backend, *indices
            )
            return y.view(*x.shape[:-1], down.out_features)
    return down(gelu(up(x)))  # type: ignore[no-any-return]


def _native_backend(up: SparseLinear, down: SparseLinear, x: Tensor, *parameters: Tensor | None) -> CpuBackend | None:
    """The backend that can compute the network of these layers, which holds these tensors; None if there is none."""
    tensors = [x, *(parameter for parameter in parameters if parameter is not None)]
    if (
        serves(*tensors)
        and not is_watched(up.columns, down.columns)
        and all(tensor.dtype == x.dtype for tensor in tensors)
        and up.columns.device == down.columns.device == x.device
        and x.dim() > 0
        and (x.shape[-1], up.out_features) == (up.in_features, down.in_features)
        and up.backend == down.backend
    ):
        backend = choose_backend(up.backend, *tensors[:2])
        return backend if type(backend) is CpuBackend else None
    return None


class _SparseFeedForward(torch.autograd.Function):
    """It has no `setup_context`, for which torch would inspect the signature of `forward` in every call."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        x, up_values, up_bias, down_values, down_bias, keeps, ctx.backend, *indices = inputs
        up, down = _weights(up_values, up_bias, down_values, down_bias, indices)
        y, hidden = ctx.backend.feed_forward(x, up, down, keeps)
        ctx.has_biases = up_bias is not None, down_bias is not None
        ctx.save_for_backward(x, hidden, up_values, down_values, *indices)
        return y  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, hidden, up_values, down_values, *indices = ctx.saved_tensors
        needs_x, needs_up, needs_up_bias, needs_down, needs_down_bias = ctx.needs_input_grad[:5]
        has_up_bias, has_down_bias = ctx.has_biases
        needed = needs_x, needs_up, needs_up_bias and has_up_bias, needs_down
        up, down = _weights(up_values, None, down_values, None, indices)
        if ctx.backend.supports(grad, down_values):
            gradients = ctx.backend.feed_forward_gradients(grad, x, hidden, up, down, needed)
        else:
            gradients = _gradients(grad, x, hidden, up, down)
        return (
            *gradients,
            column_sums(grad) if has_down_bias and needs_down_bias else None,
            *[None] * (2 + len(indices)),
        )


def _gradients(grad: Tensor, x: Tensor, hidden: Tensor, up: Weights, down: Weights) -> tuple[Tensor, ...]:
    """The reference of `CpuBackend.feed_forward_gradients`, which takes any gradient and computes all of them."""
    slope = torch.ops.aten.gelu_backward(dense.input_gradient(grad, down.values, down.topology), hidden)
    return (
        dense.input_gradient(slope, up.values, up.topology),
        dense.weight_gradient(slope, x, up.topology),
        slope.sum(0),
        dense.weight_gradient(grad, gelu(hidden), down.topology),
    )


def _weights(
    up_values: Tensor, up_bias: Tensor | None, down_values: Tensor, down_bias: Tensor | None, indices: list[Tensor]
) -> tuple[Weights, Weights]:
    """The weights of both layers, whose topologies are given by the tensors of their indices."""
    each = len(INDICES)
    return (
        Weights(up_values, BlockTopology((up_values.shape[1], up_values.shape[2]), *indices[:each]), up_bias),
        Weights(down_values, BlockTopology((down_values.shape[1], down_values.shape[2]), *indices[each:]), down_bias),
    )
