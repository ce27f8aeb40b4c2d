"""The sizes of tiles, measured on the GPU at hand once for each shape.

Triton keeps the choice on disk, beside its compiled kernels, so that later processes need not measure again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import triton

KEY = ["bucket", "groups", "SPAN", "RUN"]  # the arguments of every tuned kernel that decide which tiles are best
ACCUMULATORS_A_THREAD = 128  # float32 registers for sums; with more of them a thread would spill registers to memory


def tuned(tiles: list[triton.Config], columns: str | None = "BLOCK_SPAN") -> Callable[[Any], Any]:
    """A decorator for a kernel that chooses the fastest of `tiles` for each combination of `KEY` and the dtypes.

    With the environment variable TRITON_PRINT_AUTOTUNING=1 Triton prints what it chose.

    Args:
        tiles: the sizes, warps and pipeline stages to choose from.
        columns: the name of the kernel's argument that gives the columns of its accumulator, whose rows are
            `BLOCK_TOKENS`; tiles whose accumulator would not fit the registers are not tried. None if the accumulator
            does not depend on the choice.
    """

    def prune(tiles: list[triton.Config], named_args: dict[str, Any], **arguments: Any) -> list[triton.Config]:
        def accumulators(config: triton.Config) -> float:
            elements = int(config.kwargs["BLOCK_TOKENS"]) * (int(arguments[columns]) if columns else 0)
            return elements / (32 * int(config.num_warps))

        fitting = [config for config in tiles if accumulators(config) <= ACCUMULATORS_A_THREAD]
        return fitting or [min(tiles, key=accumulators)]

    decorator: Callable[[Any], Any] = triton.autotune(
        tiles, KEY, prune_configs_by={"early_config_prune": prune}, cache_results=True
    )
    return decorator


def bucket(tokens: int) -> int:
    """The smallest power of two not below `tokens`, so that batches of about the same size share their tiles."""
    covering: int = triton.next_power_of_2(tokens)
    return covering
