"""The kernels compiled for GPUs that are not there: what Triton's interpreter cannot tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
SCRIPT = Path(__file__).parents[3] / "benchmarks" / "gpu_compile.py"


def compiled(block, capability, tmp_path, *options):
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, str(SCRIPT), "--block", block, "--capability", str(capability), *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(kernels):
    """No float atomics, nothing spilled, nothing read two bytes at a time that is multiplied on tensor cores."""
    assert {kernel["product"] for kernel in kernels} == {"forward", "input_gradient", "weight_gradient"}
    for kernel in kernels:
        assert kernel["atomics"] == 0
        assert kernel["spilled"] == 0
        assert not kernel["wgmma"] or kernel["two_byte_loads"] <= 1
    return kernels


@pytest.mark.parametrize("block", ["64x64", "16x1", "1x1"])
def test_compiles_for_hopper(block, tmp_path):
    kernels = check(compiled(block, 90, tmp_path, "--tiles", "first"))
    on_tensor_cores = {kernel["product"] for kernel in kernels if kernel["wgmma"]}
    assert on_tensor_cores == ({"weight_gradient"} if block == "1x1" else {kernel["product"] for kernel in kernels})


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize("block", ["128x128", "64x64", "32x32", "16x16", "8x8", "4x4", "64x1", "1x32", "24x16", "1x1"])
def test_every_tile_compiles(block, capability, precision, tmp_path):
    kernels = compiled(block, capability, tmp_path, "--precision", precision)
    assert all(kernel["atomics"] == 0 for kernel in kernels)
