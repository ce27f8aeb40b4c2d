"""Tile sizes: measured on the GPU at hand, once a shape, and kept on disk by Triton beside its compiled kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import triton

KEY = ["bucket", "groups", "SPAN", "RUN"]  # the arguments of every tuned kernel that decide which tiles are best
ACCUMULATORS_A_THREAD = 128  # float32 registers; more of them would spill


def tuned(*configs: triton.Config, columns: str = "BLOCK_SPAN") -> Callable[[Any], Any]:
    """Decorate a kernel: the fastest of `configs` is chosen by the arguments of `KEY` and the dtypes.

    `TRITON_PRINT_AUTOTUNING=1` shows what was chosen. In Triton's interpreter, where time means nothing, the first is.

    Args:
        columns: the argument that holds the columns of the kernel's accumulator of `BLOCK_TOKENS` rows, or none.
    """
    kept = configs[:1] if triton.knobs.runtime.interpret else configs

    def prune(configs: list[triton.Config], named_args: dict[str, Any], **arguments: Any) -> list[triton.Config]:
        def accumulators(config: triton.Config) -> float:
            size: int = config.kwargs["BLOCK_TOKENS"] * arguments.get(columns, 0)
            return size / (32 * config.num_warps)

        fitting = [config for config in configs if accumulators(config) <= ACCUMULATORS_A_THREAD]
        return fitting or [min(configs, key=accumulators)]

    return triton.autotune(list(kept), KEY, prune_configs_by={"early_config_prune": prune}, cache_results=True)  # type: ignore[no-any-return]


def bucket(tokens: int) -> int:
    """The power of two up from `tokens`: batches of about the same size share their tiles."""
    return triton.next_power_of_2(tokens)  # type: ignore[no-any-return]
