"""Tile sizes: measured on the GPU at hand, once a shape, and kept on disk by Triton beside its compiled kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import triton

KEY = ["bucket", "groups", "SPAN", "RUN"]  # the arguments of every tuned kernel that decide which tiles are best
ACCUMULATORS_A_THREAD = 128  # float32 registers; more of them would spill


def tuned(tiles: list[triton.Config], columns: str | None = "BLOCK_SPAN") -> Callable[[Any], Any]:
    """Decorate a kernel: the fastest of `tiles` is chosen by the arguments of `KEY` and the dtypes.

    `TRITON_PRINT_AUTOTUNING=1` shows what was chosen.

    Args:
        tiles: sizes, warps and pipeline stages to choose from.
        columns: the argument that holds the columns of the kernel's accumulator; its rows are `BLOCK_TOKENS`. None
            where the accumulator does not depend on the choice.
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
    """The power of two up from `tokens`: batches of about the same size share their tiles."""
    covering: int = triton.next_power_of_2(tokens)
    return covering
