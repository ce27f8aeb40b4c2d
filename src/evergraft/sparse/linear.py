"""The three products of a sparse layer behind one differentiable, compilable function: `linear`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from evergraft.errors import EvergraftError
from evergraft.kernels.column_sums import column_sums
from evergraft.kernels.native import is_plain, is_transformed
from evergraft.sparse.products import choose_backend, dense
from evergraft.sparse.topology import BlockTopology


def linear(
    x: Tensor, values: Tensor, topology: BlockTopology, bias: Tensor | None = None, backend: str = "auto"
) -> Tensor:
    """Compute y = x W^T + bias, where W [out, in] holds `values` at the active blocks of `topology` and zero elsewhere.

    Differentiable in x, values and bias (once; no double backward). Under autocast it computes in the autocast
    dtype, as `torch.nn.functional.linear` does. Transforms of `torch.func` (`vmap`, `grad`, ...) take the reference
    products, whatever the backend.

    Args:
        x: floating [..., in_features].
        values: [active, R, C], the dtype and device of x.
        bias: [out_features], the dtype and device of x, or None.
        backend: a registered name, or `auto`.

    Returns:
        [..., out_features], the dtype of x (of autocast where that is on).

    Raises:
        EvergraftError: shapes that do not fit the topology, dtypes or devices that are not those of x, or a backend
            that is unknown or does not support the tensors.
    """
    if x.shape[-1] != topology.in_features or values.shape != (topology.active, *topology.block):
        raise EvergraftError(
            f"expected x [..., {topology.in_features}] and values [{topology.active}, {topology.block[0]}, "
            f"{topology.block[1]}]; got {list(x.shape)} and {list(values.shape)}"
        )
    x, values, bias = autocast(x, values, bias)
    bias = _checked(x, values, topology, bias)
    if is_transformed():
        return dense.forward(x, values, topology, bias)
    product: Callable[..., Tensor] = torch.ops.evergraft.forward if is_watched(x, values) else _SparseLinear.apply
    y = product(x.reshape(-1, x.shape[-1]), values, bias, *topology.tensors(), backend)
    return y.view(*x.shape[:-1], topology.out_features)


def autocast(x: Tensor, *parameters: Tensor | None) -> tuple[Any, ...]:
    """The tensors in the dtype of autocast, where that is on for the device of x; else as they are."""
    if not torch.is_autocast_enabled(x.device.type):
        return x, *parameters
    dtype = torch.get_autocast_dtype(x.device.type)
    return x.to(dtype), *(None if parameter is None else parameter.to(dtype) for parameter in parameters)


def _checked(x: Tensor, values: Tensor, topology: BlockTopology, bias: Tensor | None) -> Tensor | None:
    """The bias, contiguous, if everything fits x: kernels are handed bare memory."""
    if values.dtype != x.dtype or not values.device == topology.columns.device == x.device:
        raise EvergraftError(
            f"expected values of {x.dtype} on {x.device}, as x, and their topology there; got {values.dtype} on "
            f"{values.device} and {topology.columns.device}: move model and inputs with .to(device) and .to(dtype)"
        )
    if bias is None:
        return None
    if bias.shape != (topology.out_features,) or bias.dtype != x.dtype or bias.device != x.device:
        raise EvergraftError(
            f"expected a bias [{topology.out_features}] of {x.dtype} on {x.device}, as x; got {list(bias.shape)} of "
            f"{bias.dtype} on {bias.device}"
        )
    return bias.contiguous()


def is_watched(*tensors: Tensor) -> bool:
    """Whether anything traces, fakes or wraps tensors, and must be shown operators."""
    return not all(map(is_plain, tensors)) or torch.compiler.is_compiling() or is_in_torch_dispatch_mode()


class _SparseLinear(torch.autograd.Function):
    """What the operators below do, called at once: their way through torch's dispatcher takes 7 % of a step of Tiny.

    It has no `setup_context`, for which torch would inspect the signature of `forward` in every call.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        x, values, bias, *topology, backend = inputs
        y = choose_backend(backend, x, values).forward(x, values, _topology(values, *topology), bias)
        _setup_context(ctx, inputs, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, values, *tensors = ctx.saved_tensors
        topology, backend = _topology(values, *tensors), choose_backend(ctx.backend, grad, values)
        return _gradients(
            ctx,
            grad,
            lambda: backend.input_gradient(grad, values, topology),
            lambda: backend.weight_gradient(grad, x, topology),
        )


# The operators take the topology as its four tensors, so that tracing and `opcheck` see nothing but tensors.


@torch.library.custom_op("evergraft::forward", mutates_args=())
def _forward(
    x: Tensor,
    values: Tensor,
    bias: Tensor | None,
    row_offsets: Tensor,
    columns: Tensor,
    transposed_offsets: Tensor,
    transposed_order: Tensor,
    backend: str,
) -> Tensor:
    topology = _topology(values, row_offsets, columns, transposed_offsets, transposed_order)
    return choose_backend(backend, x, values).forward(x, values, topology, bias)


@torch.library.custom_op("evergraft::input_gradient", mutates_args=())
def _input_gradient(
    grad: Tensor,
    values: Tensor,
    row_offsets: Tensor,
    columns: Tensor,
    transposed_offsets: Tensor,
    transposed_order: Tensor,
    backend: str,
) -> Tensor:
    topology = _topology(values, row_offsets, columns, transposed_offsets, transposed_order)
    return choose_backend(backend, grad, values).input_gradient(grad, values, topology)


@torch.library.custom_op("evergraft::weight_gradient", mutates_args=())
def _weight_gradient(
    grad: Tensor,
    x: Tensor,
    values: Tensor,
    row_offsets: Tensor,
    columns: Tensor,
    transposed_offsets: Tensor,
    transposed_order: Tensor,
    backend: str,
) -> Tensor:
    topology = _topology(values, row_offsets, columns, transposed_offsets, transposed_order)
    operand = grad if is_plain(x) else x  # a backend must be able to take both
    return choose_backend(backend, operand, values).weight_gradient(grad, x, topology)


@_forward.register_fake
def _(x, values, bias, row_offsets, columns, transposed_offsets, transposed_order, backend):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape[0], (row_offsets.shape[0] - 1) * values.shape[1])


@_input_gradient.register_fake
def _(grad, values, row_offsets, columns, transposed_offsets, transposed_order, backend):  # type: ignore[no-untyped-def]
    return grad.new_empty(grad.shape[0], (transposed_offsets.shape[0] - 1) * values.shape[2])


@_weight_gradient.register_fake
def _(grad, x, values, row_offsets, columns, transposed_offsets, transposed_order, backend):  # type: ignore[no-untyped-def]
    return torch.empty_like(values)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, values, bias, *topology, ctx.backend = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(x, values, *topology)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, values, *topology = ctx.saved_tensors
    ops = torch.ops.evergraft
    return _gradients(
        ctx,
        grad,
        lambda: ops.input_gradient(grad, values, *topology, ctx.backend),
        lambda: ops.weight_gradient(grad, x, values, *topology, ctx.backend),
    )


def _gradients(
    ctx: Any, grad: Tensor, of_input: Callable[[], Tensor], of_values: Callable[[], Tensor]
) -> tuple[Tensor | None, ...]:
    """The gradients of (x, values, bias, the topology's tensors, backend); None for those that are not needed."""
    needs_x, needs_values, needs_bias = ctx.needs_input_grad[:3]
    return (
        of_input() if needs_x else None,
        of_values() if needs_values else None,
        column_sums(grad) if ctx.has_bias and needs_bias else None,
        *[None] * 5,
    )


_forward.register_autograd(_backward, setup_context=_setup_context)


def _topology(values: Tensor, *tensors: Tensor) -> BlockTopology:
    return BlockTopology((values.shape[1], values.shape[2]), *tensors)
