"""Gradients of blocks that do not exist yet, for growth rules that look at them."""

from __future__ import annotations

from collections.abc import Iterable

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
        self._handles = [layer.register_forward_hook(self._watch) for layer in self._layers]

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
            EvergraftError: the layer took part in no backward pass since the recording began.
        """
        if len(positions) == 0:
            return layer.values.new_zeros(0, *layer.block)
        if layer not in self._kept:
            raise EvergraftError(
                "no backward pass was recorded for a layer whose growth rule looks at gradients; call step() of the "
                "TopologyUpdater after every optimiser step, and update() not at all"
            )
        order = positions.argsort()
        sought = BlockTopology.from_positions(layer.out_features, layer.in_features, layer.block, positions)
        total = torch.zeros(len(positions), *layer.block, device=positions.device, dtype=layer.values.dtype)
        for x, grad in self._kept[layer]:
            product = choose_backend(layer.backend, grad, grad.new_empty(1, *layer.block)).weight_gradient
            total += product(grad, x, sought)
        return total[order.argsort()]

    def _watch(self, layer: SparseLinear, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if output.requires_grad:
            x = inputs[0].detach().flatten(0, -2)
            output.register_hook(lambda grad: self._keep(layer, x, grad))  # type: ignore[no-untyped-call]

    def _keep(self, layer: SparseLinear, x: Tensor, grad: Tensor) -> None:
        if self.is_on:
            self._kept.setdefault(layer, []).append((x.to(grad.dtype), grad.detach().flatten(0, -2)))
