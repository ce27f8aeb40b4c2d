"""A learning rate of their own for some parameters, such as the sparse values of a model."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from evergraft.errors import EvergraftError
from evergraft.sparse.conversion import sparse_layers


def scale_sparse_rate(model: nn.Module, optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Multiply the learning rate of a model's sparse values by `factor`, in parameter groups of their own.

    An output of a sparse layer sums fewer products than one of a dense layer, so its weights may and should move
    further in a step (Dey et al. 2024, "Sparse maximal update parameterization", arXiv 2405.15743), while embeddings,
    norms and heads, which are as dense as ever, keep the dense model's rate. All else in a group (weight decay, betas)
    stays as it is. Schedulers that scale the rates of all groups keep the factor.

    Args:
        model: holds at least one SparseLinear.
        optimizer: trains the model; no scheduler has been made of it yet.
        factor: how many times the rate of their group the values are to have, above 0.

    Raises:
        EvergraftError: the model holds no sparse layer, the optimiser trains none of them, the factor is not above 0,
            or a scheduler has been made already.

    Example:
        >>> optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        >>> evergraft.scale_sparse_rate(model, optimizer, 4.0)
        >>> [group["lr"] for group in optimizer.param_groups]
        [0.001, 0.004]
    """
    scale_rate(optimizer, [layer.values for layer in sparse_layers(model).values()], factor)


def scale_rate(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], factor: float) -> None:
    """Multiply the learning rate of some parameters by `factor`, in groups of their own.

    Args:
        optimizer: trains them; no scheduler has been made of it yet.
        parameters: those whose rate is to change.
        factor: how many times the rate of their group they are to have, above 0.

    Raises:
        EvergraftError: the optimiser trains none of them, the factor is not above 0, or a scheduler has been made.
    """
    if not factor > 0:
        raise EvergraftError(f"the factor on a learning rate must be above 0; got {factor}")
    if any("initial_lr" in group for group in optimizer.param_groups):
        raise EvergraftError("scale learning rates before a scheduler is made, which would put them back")
    chosen = {id(parameter) for parameter in parameters}
    if not any(id(parameter) in chosen for group in optimizer.param_groups for parameter in group["params"]):
        raise EvergraftError("the optimiser trains none of these parameters; make it after sparsify")
    for group in list(optimizer.param_groups):
        mine = [parameter for parameter in group["params"] if id(parameter) in chosen]
        rest = [parameter for parameter in group["params"] if id(parameter) not in chosen]
        if mine and rest:
            group["params"] = rest
            optimizer.add_param_group({**group, "params": mine, "lr": factor * group["lr"]})
        elif mine:
            group["lr"] *= factor
