"""The kind of device to compute on."""

from __future__ import annotations

from typing import Literal

import torch

from evergraft.errors import EvergraftError

Device = Literal["cpu", "cuda"]


def resolve_device(device: str) -> Device:
    """The device that a name stands for on this machine.

    Args:
        device: `auto`, `cpu` or `cuda`; `auto` is `cuda` where torch sees a GPU, else `cpu`.

    Raises:
        EvergraftError: another name, or `cuda` where torch sees no GPU.

    Example:
        >>> resolve_device("auto")
        'cpu'
    """
    if device not in ("auto", "cpu", "cuda"):
        raise EvergraftError(f"`device` must be auto, cpu or cuda; got {device}")
    if device == "cuda" and not torch.cuda.is_available():
        raise EvergraftError("`device` cuda: torch sees no GPU on this machine; use cpu or auto")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
