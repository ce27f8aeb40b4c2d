"""Whether this machine can compile a model, found out before a run begins."""

from __future__ import annotations

import torch

from evergraft.errors import EvergraftError


def check_compiler(device: str) -> None:
    """Compile one line for a device; seconds.

    Args:
        device: `cpu` or `cuda`.

    Raises:
        EvergraftError: there is no compiler, or one that fails.
    """
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(64, device=device))
    except Exception as error:  # torch and its compilers raise their own of many kinds
        reason = str(error).strip().splitlines() or [type(error).__name__]
        needed = "a C++ compiler such as g++" if device == "cpu" else "Triton and a C compiler such as gcc"
        raise EvergraftError(
            f"--compile: torch cannot compile for {device} on this machine, which takes {needed}, Python's headers and "
            f"a temporary folder to write to; got {reason[0]}: provide them, or leave --compile out"
        ) from None
