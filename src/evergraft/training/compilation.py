"""Compiled runs: whether this machine can compile, and what makes them repeat.

This module is not part of the public interface.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils import deterministic

from evergraft.errors import EvergraftError


def check_compiler(device: str) -> None:
    """Find out whether torch can compile on this machine, by compiling one line; that takes seconds.

    Args:
        device: the kind of device to compile for, `cpu` or `cuda`.

    Raises:
        EvergraftError: there is no compiler, or it fails.
    """
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(64, device=device))
    except Exception as error:  # torch and its compilers raise their own of many kinds
        reason = str(error).strip().splitlines() or [type(error).__name__]
        needed = "a C++ compiler such as g++" if device == "cpu" else "Triton and a C compiler such as gcc"
        raise EvergraftError(
            f"`compile`: torch cannot compile for {device} on this machine, which takes {needed}, Python's headers and "
            f"a temporary folder to write to; got {reason[0]}: provide them, or leave `compile` out"
        ) from None


@contextmanager
def one_order_of_sums() -> Iterator[None]:
    """Within this block, compiled code adds up gradients in one order, however many threads compute them.

    Without it, the gradients of embeddings would be added up in whatever order the threads come to.
    """
    mode = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True)
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode, warn_only=warn_only)
        deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
