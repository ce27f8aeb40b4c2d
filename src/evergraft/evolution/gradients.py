"""Gradients of blocks that do not exist yet, for growth rules that look at them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from evergraft.errors import EvergraftError
from evergraft.sparse.layer import SparseLinear
from evergraft.sparse.products import choose_backend
from evergraft.sparse.topology import BlockTopology


class GradientRecorder:
    """Keeps what the gradient of any block of a layer is made of, while it is on: inputs and output gradients.

    The gradient of a block at an inactive position is the product that the layer's backend computes for the active
    ones, of a topology that consists of the positions asked for. So nothing dense is built; what is kept is one input
    and one output gradient a layer and micro-batch, for one optimiser step.

    Args:
        layers: the layers to watch.
    """

    def __init__(self, layers: Iterable[SparseLinear]) -> None:
        self._layers = list(layers)
        self._handles: list[RemovableHandle] = []
        self._kept: dict[SparseLinear, list[tuple[Tensor, Tensor]]] = {}

    @property
    def is_on(self) -> bool:
        """Whether it records."""
        return bool(self._handles)

    def start(self) -> None:
        """Record from the next forward pass on."""
        self.stop()
        self._handles = [layer.register_forward_hook(self._watch, with_kwargs=True) for layer in self._layers]

    def stop(self) -> None:
        """Record no more, and forget what was kept."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._kept = {}

    def gradient(self, layer: SparseLinear, positions: Tensor) -> Tensor:
        """The gradient [n, R, C] of the loss with respect to blocks at `positions`, summed over micro-batches.

        Args:
            positions: int64 [n], block positions in any order, no position twice.

        Raises:
            EvergraftError: no layer took part in a backward pass since the recording began. The gradient of a layer
                that took part in none, while others did, is zero.
        """
        if len(positions) == 0:
            return layer.values.new_zeros(0, *layer.block)
        if not self._kept:
            raise EvergraftError(
                "no backward pass was recorded, and this growth rule looks at gradients; call step() of the "
                "TopologyUpdater after every optimiser step, update() not at all, and do not compile the model"
            )
        order = positions.argsort()
        sought = BlockTopology.from_positions(layer.out_features, layer.in_features, layer.block, positions)
        total = torch.zeros(len(positions), *layer.block, device=positions.device, dtype=layer.values.dtype)
        for x, grad in self._kept.get(layer, ()):
            product = choose_backend(layer.backend, grad, grad.new_empty(1, *layer.block)).weight_gradient
            total += product(grad, x, sought)
        return total[order.argsort()]

    def _watch(
        self, layer: SparseLinear, inputs: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor
    ) -> Tensor | None:
        """A forward hook, which puts a `_Watched` behind the layer."""
        if not output.requires_grad:
            return None
        x = (inputs[0] if inputs else named["x"]).detach().reshape(-1, layer.in_features)
        return _Watched.apply(output, lambda grad: self._keep(layer, x, grad))  # type: ignore[no-any-return,no-untyped-call]

    def _keep(self, layer: SparseLinear, x: Tensor, grad: Tensor) -> None:
        if self.is_on:
            grad = grad.detach().reshape(-1, layer.out_features)
            self._kept.setdefault(layer, []).append((x.to(grad.dtype), grad))


class _Watched(torch.autograd.Function):
    """A copy of a tensor, whose gradient is shown to `keep`; a hook would miss it if the tensor is changed in place."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, keep: Callable[[Tensor], None]) -> Tensor:
        ctx.keep = keep
        return output.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ctx.keep(grad)
        return grad, None
