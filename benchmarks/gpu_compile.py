"""Compile the GPU kernels of a layer without running them; no GPU is needed.

    python benchmarks/gpu_compile.py --block 16x16 --capability 90

prints a JSON line for every kernel: its tile, registers, spilled bytes, shared memory, and which instructions it has.
On a GPU, leave --capability out: Triton's cache then holds what a first training step would have waited for.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import autotuner, driver, jit

from evergraft.settings import parse_block
from evergraft.sparse.products import gpu
from evergraft.sparse.topology import BlockTopology

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
INSTRUCTIONS = {
    "wgmma": r"wgmma\.mma_async",
    "mma": r"mma\.sync\.aligned",
    "cp_async_16_bytes": r"cp\.async\.cg",
    "two_byte_loads": r"ld\.global[.\w:]*\.b16",
    "atomics": r"\b(atom|red)\.",
}


class AbsentGpu:
    """What Triton asks a driver while it compiles."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def compiling_only(every_tile: bool) -> Iterator[list[tuple[str, dict[str, Any], Any]]]:
    """Within, kernels are compiled where they would be run; yields the list of (name, tile, compiled kernel)."""
    compiled: list[tuple[str, dict[str, Any], Any]] = []
    run, tune = jit.JITFunction.run, autotuner.Autotuner.run

    def compile_it(self: Any, *arguments: Any, **options: Any) -> None:
        kernel = run(self, *arguments, **{**options, "warmup": True})
        tile = {name: value for name, value in options.items() if name.startswith(("BLOCK_", "ITEMS", "num_"))}
        compiled.append((self.fn.__name__, tile, kernel))

    def compile_tiles(self: Any, *arguments: Any, **options: Any) -> None:
        self.nargs = dict(zip(self.arg_names, arguments, strict=False))
        tiles = self.prune_configs(options)
        for tile in tiles if every_tile else tiles[:1]:
            self.fn.run(*arguments, **options, **tile.all_kwargs())

    jit.JITFunction.run, autotuner.Autotuner.run = compile_it, compile_tiles
    try:
        yield compiled
    finally:
        jit.JITFunction.run, autotuner.Autotuner.run = run, tune


def products(arguments: argparse.Namespace, device: str) -> dict[str, Callable[[], torch.Tensor]]:
    """The three products of the layer, on tensors that nobody reads."""
    block, dtype = parse_block(arguments.block), DTYPES[arguments.precision]
    rng = np.random.default_rng(0)
    topology = BlockTopology.random(arguments.out_features, arguments.in_features, block, arguments.density, rng)
    topology = BlockTopology(block, *(tensor.to(device) for tensor in topology.tensors()))
    x = torch.empty(arguments.tokens, arguments.in_features, dtype=dtype, device=device)
    grad = torch.empty(arguments.tokens, arguments.out_features, dtype=dtype, device=device)
    values = torch.empty(topology.active, *block, dtype=dtype, device=device)
    bias = torch.empty(arguments.out_features, dtype=dtype, device=device)
    return {
        "forward": lambda: gpu.forward(x, values, topology, bias),
        "input_gradient": lambda: gpu.input_gradient(grad, values, topology),
        "weight_gradient": lambda: gpu.weight_gradient(grad, x, topology),
    }


def describe(kernel: Any) -> dict[str, Any]:
    """Registers a thread, bytes spilled, shared memory, and how often each kind of instruction stands in the code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        tool = triton.knobs.nvidia.cuobjdump.path
        usage = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True)
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage.stdout + usage.stderr)
    registers, stack, local = map(int, found.groups()) if found else (0, 0, 0)
    counts = {name: len(re.findall(pattern, kernel.asm["ptx"])) for name, pattern in INSTRUCTIONS.items()}
    return {"registers": registers, "spilled": stack + local, "shared": kernel.metadata.shared, **counts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--block", default="16x16")
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--in", dest="in_features", type=int, default=768)
    parser.add_argument("--out", dest="out_features", type=int, default=3072)
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--precision", choices=DTYPES, default="bf16")
    parser.add_argument("--capability", type=int, help="as 80, 90 or 100: of a GPU that is not there")
    parser.add_argument("--tiles", choices=["all", "first"], default="all")
    arguments = parser.parse_args()
    if arguments.capability:
        driver.set_active(AbsentGpu(arguments.capability))
    with compiling_only(arguments.tiles == "all") as compiled:
        for name, product in products(arguments, "cpu" if arguments.capability else "cuda").items():
            compiled.clear()
            product()
            different = {id(kernel): (kernel_name, tile, kernel) for kernel_name, tile, kernel in compiled}
            for kernel_name, tile, kernel in different.values():
                print(json.dumps({"product": name, "kernel": kernel_name, "tile": tile, **describe(kernel)}))


if __name__ == "__main__":
    main()
