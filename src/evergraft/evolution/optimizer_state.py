"""Carry an optimiser's state along when the blocks of a tensor change places."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evergraft.errors import EvergraftError
from evergraft.kernels.native import is_plain


def check_carriable(optimizer: torch.optim.Optimizer, name: str, values: nn.Parameter) -> None:
    """Check that the optimiser trains `values`, and that its state of them is per element or a plain counter.

    Args:
        optimizer: the optimiser, before or after its first step.
        name: the layer's name, for the error message.
        values: floating [active, R, C].

    Raises:
        EvergraftError: `values` are in no parameter group, state that is neither a plain tensor of the shape of
            `values` nor a single number, or an optimiser whose state of a new weight must not be zero.
    """
    if isinstance(optimizer, torch.optim.Rprop):
        raise EvergraftError(
            "Rprop keeps a step size for each weight, and one of zero, as a grown block's would be, never learns; use "
            "an optimiser such as AdamW, Adam or SGD"
        )
    if not any(parameter is values for group in optimizer.param_groups for parameter in group["params"]):
        raise EvergraftError(
            f"the optimiser does not train {name}.values; make it after sparsify(model, ...), or freeze the layer with "
            "values.requires_grad_(False)"
        )
    for key, state in optimizer.state.get(values, {}).items():
        if not _is_carriable(state, values):
            kept = f"of shape {list(state.shape)}" if type(state) is Tensor else f"as {type(state).__name__}"
            raise EvergraftError(
                f"{type(optimizer).__name__} keeps {key} {kept} for {name}.values of shape "
                f"{list(values.shape)}, which cannot be carried to other blocks; use an optimiser with per-element "
                "state, such as AdamW, Adam or SGD"
            )


@torch.no_grad()
def carry(optimizer: torch.optim.Optimizer, values: nn.Parameter, sources: Tensor) -> None:
    """Move `values` and every per-element state of it to their new slots; new slots start at zero.

    Step counters stay as they are. A gradient that is still there belongs to the old topology and is dropped. Where
    the number of blocks changes, `values` stays the same parameter with other contents, so that the optimiser goes on
    training it.

    Args:
        optimizer: its state is changed in place.
        values: floating [active before, R, C].
        sources: int64 [active after], the old slot of each new one, -1 where the block is new.
    """
    state = optimizer.state.get(values, {})
    per_element = [key for key, kept in state.items() if isinstance(kept, Tensor) and kept.shape == values.shape]
    for key in per_element:
        state[key] = _moved(state[key], sources)
    moved = _moved(values, sources)
    if moved is not values:
        values.data = moved
    if values.grad is not None:
        values.grad = values.grad.zero_() if values.grad.shape == values.shape else None


def _is_carriable(state: object, values: nn.Parameter) -> bool:
    if isinstance(state, Tensor):  # a subclass, such as quantised state, may not be indexed as its shape says
        return is_plain(state) and (state.numel() == 1 or state.shape == values.shape)
    return state is None or isinstance(state, int | float)


def _moved(tensor: Tensor, sources: Tensor) -> Tensor:
    """The tensor with its slots in their new order: in its own memory, unless their number changes."""
    moved = tensor.index_select(0, sources.clamp(min=0))
    moved[sources < 0] = 0
    return tensor.copy_(moved) if moved.shape == tensor.shape else moved
