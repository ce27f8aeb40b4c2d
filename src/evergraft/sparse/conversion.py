"""Swap the linear layers of any model for sparse ones, in place, and back."""

from __future__ import annotations

import hashlib
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from evergraft.errors import EvergraftError
from evergraft.sparse.allocate import allocate
from evergraft.sparse.allocation import Count
from evergraft.sparse.config import SparsityConfig
from evergraft.sparse.layer import SparseLinear
from evergraft.sparse.topology import BlockTopology


@dataclass(frozen=True)
class SparsifyReport:
    """What `sparsify` did.

    Attributes:
        layers: the names of the layers made sparse, in the model's order.
        active, total: weights that exist in them, and weights their dense forms had.
    """

    layers: tuple[str, ...]
    active: int
    total: int

    @property
    def density(self) -> float:
        """The exact density got over all sparse layers."""
        return self.active / self.total

    def __str__(self) -> str:
        return f"{len(self.layers)} layers made sparse: {self.active:,} of {self.total:,} weights ({self.density:.4%})"


def sparsify(
    model: nn.Module,
    config: SparsityConfig | float | None = None,
    block: tuple[int, int] | str | None = None,
    **settings: Any,
) -> SparsifyReport:
    """Swap each selected linear layer of `model` for a `SparseLinear` with a random topology, in place.

    Linear layers are `nn.Linear` and the `Conv1D` of transformers' GPT-2. Values are drawn anew; biases are kept, and
    what is frozen stays frozen. Topology and values of a layer depend on the seed and the layer's name alone.
    Call it before the optimiser is made: the dense parameters are gone afterwards.

    Args:
        config: how the model is to be sparse; or its density, in (0, 1].
        block: (R, C), rows of the output and columns of the input, if no record is given.
        settings: the fields of `SparsityConfig` by keyword, if no record is given: `density`, `include`, `exclude`,
            `overrides`, `allocation`, `placement`, `initialisation`, `initial_std`, `seed`, `backend`.

    Raises:
        EvergraftError: nothing matches, a block does not divide every match, a weight is shared with another module or
            is no parameter (torch has pruned it, for example), or a setting is wrong. The model is then as it was.

    Example:
        >>> evergraft.sparsify(model, density=0.1, block=(16, 16))
        >>> evergraft.sparsify(model, SparsityConfig(density=0.1, overrides={"*.attention.*": 0.2}))
    """
    settings |= {} if block is None else {"block": block}
    if isinstance(config, (int, float)):
        config, settings = None, settings | {"density": config}
    asked = SparsityConfig.of(config, **settings)
    selected = _select(model, asked)
    counts = allocate({name: _shape(dense) for name, dense in selected.items()}, asked)
    layers = {name: _sparse(name, dense, counts[name], asked) for name, dense in selected.items()}
    for name, layer in layers.items():
        model.set_submodule(name, layer)
    active = sum(layer.values.numel() for layer in layers.values())
    total = sum(layer.in_features * layer.out_features for layer in layers.values())
    return SparsifyReport(tuple(layers), active, total)


def densify(model: nn.Module) -> None:
    """Swap each `SparseLinear` of `model` for the dense layer that computes the same, in place.

    That is an `nn.Linear`, or a `Conv1D` where there was one. A configuration of the model that says how it is sparse
    is replaced by a copy that says it is dense.

    Raises:
        EvergraftError: the model holds no sparse layer.

    Example:
        >>> evergraft.densify(model)
    """
    for name, layer in _sparse_modules(model).items():
        model.set_submodule(name, _dense(layer))
    config: Any = copy(getattr(model, "config", None))
    if getattr(config, "sparsity", None) is not None:
        config.sparsity = None
        model.config = config


def sparse_layers(model: nn.Module) -> dict[str, SparseLinear]:
    """The sparse layers of `model` by name, in its order, through the wrappers of DDP and `torch.compile`.

    Raises:
        EvergraftError: the model holds no sparse layer.

    Example:
        >>> for name, layer in evergraft.sparse_layers(model).items():
        ...     print(name, layer.topology.active)
    """
    return {_plain(name): layer for name, layer in _sparse_modules(model).items()}


def random_generator(seed: int, name: str, *position: int) -> np.random.Generator:
    """The generator of one layer at one position (an update, say): a pure function of its arguments."""
    digest = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return np.random.default_rng([seed, digest, *position])


def _sparse_modules(model: nn.Module) -> dict[str, SparseLinear]:
    """The sparse layers of `model` by the names that they have within wrappers such as DDP's."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, SparseLinear)}
    if not layers:
        raise EvergraftError("the model holds no SparseLinear; call evergraft.sparsify(model, ...) first")
    return layers


def _shape(dense: nn.Module) -> tuple[int, int]:
    """(out_features, in_features) of a linear layer."""
    first, second = dense.get_parameter("weight").shape
    return (first, second) if isinstance(dense, nn.Linear) else (second, first)


def _sparse(name: str, dense: nn.Module, count: Count, config: SparsityConfig) -> SparseLinear:
    rng = random_generator(config.seed, name)
    weight, bias = dense.get_parameter("weight"), dense.bias
    _, block = config.of_layer(name)
    topology = BlockTopology.random_count(*_shape(dense), block, count, rng, config.placement)
    layer = SparseLinear(topology, bias is not None, config.backend, weight.device, weight.dtype)
    if not weight.is_meta:
        generator = torch.Generator(weight.device).manual_seed(int(rng.integers(2**63)))
        layer.reset_parameters(config.std, generator, config.initialisation)
    layer.values.requires_grad_(weight.requires_grad)
    if isinstance(bias, nn.Parameter):
        layer.bias = bias
    layer.transposed = not isinstance(dense, nn.Linear)
    return layer.train(dense.training)


def _dense(layer: SparseLinear) -> nn.Module:
    dense = layer.to_dense()
    if not layer.transposed:
        return dense
    from transformers.pytorch_utils import Conv1D  # here, since the rest does without transformers, slow to import

    conv1d: nn.Module = Conv1D(layer.out_features, layer.in_features)  # type: ignore[no-untyped-call]
    conv1d.weight = nn.Parameter(dense.weight.detach().t().contiguous(), dense.weight.requires_grad)
    conv1d.bias = dense.bias
    return conv1d


def _is_linear(module: nn.Module) -> bool:
    conv1d = type(module).__name__ == "Conv1D" and type(module).__module__ == "transformers.pytorch_utils"
    return type(module) is nn.Linear or conv1d


def _select(model: nn.Module, config: SparsityConfig) -> dict[str, nn.Module]:
    linears = {name: module for name, module in model.named_modules() if name and _is_linear(module)}
    selected = {name: module for name, module in linears.items() if config.selects(name)}
    if not selected:
        raise EvergraftError(
            f"no linear layer has a name that matches include={list(config.include)} and not "
            f"exclude={list(config.exclude)}; the model's linear layers are: {', '.join(linears) or 'none'}"
        )
    for name, module in selected.items():
        if not isinstance(module.weight, nn.Parameter):
            raise EvergraftError(
                f"the weight of layer {name} is no parameter but computed from others, as torch's pruning does; make "
                "it one again (torch.nn.utils.prune.remove), or exclude the layer"
            )
        _check_unshared(model, name, module.weight)
    return selected


def _check_unshared(model: nn.Module, name: str, weight: nn.Parameter) -> None:
    others = [
        other
        for other, parameter in model.named_parameters(remove_duplicate=False)
        if parameter is weight and other != f"{name}.weight"
    ]
    if others:
        raise EvergraftError(f"layer {name} shares its weight with {others[0]}; exclude it or untie the weights first")


def _plain(name: str) -> str:
    """The name without the prefixes that DDP and `torch.compile` put before it."""
    return name.replace("_orig_mod.", "").removeprefix("module.")
