"""Nothing dense: what a sparse layer, and a whole model, hold in memory while they train, workspace included."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from evergraft.sparse.products import backend_names

pytestmark = [
    pytest.mark.skipif("cpu" not in backend_names(), reason="the reference products scatter to dense weights"),
    pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc"),
]

# Run in a process of its own: the peak of resident memory over a few training steps, above what was there before.
MEASURE = """
import ctypes, gc, json, sys
from pathlib import Path
import numpy as np, torch
from evergraft import SparseLinear
from evergraft.sparse.topology import BlockTopology
from evergraft.sparse.products import choose_backend

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

def settle():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)

def train(module, inputs, grads, steps=2):
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)
    for _ in range(steps):
        torch.autograd.backward(module(**inputs), grads)
        optimizer.step()
        optimizer.zero_grad()

torch.set_num_threads(2)
block = int(sys.argv[1]), int(sys.argv[2])
small = SparseLinear.random(128, 128, 0.5, block)
x = torch.randn(64, 128)
if choose_backend("auto", x, small.values).name != "cpu":
    print(json.dumps(None))
    sys.exit()
x.requires_grad_()
train(small, {"x": x}, torch.randn(64, 128))  # libraries are loaded, threads are there
"""

LAYER = """
tokens, into, out = 256, 3072, 12288
topology = BlockTopology.random(out, into, block, 0.1, np.random.default_rng(0))
inputs = {"x": torch.randn(tokens, into, requires_grad=True)}
grad = torch.randn(tokens, out)
inputs["x"].grad = torch.zeros(tokens, into)
settle()
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
layer = SparseLinear(topology)
train(layer, inputs, grad)
activations = 4 * tokens * (out + into)  # the output, and the gradient of the input before it is added
print(json.dumps({"peak": status("VmHWM") - before - activations, "dense": 16 * out * into}))
"""

MODEL = """
from evergraft.bench.step import StepBench
from evergraft.sparse.conversion import sparse_layers
sizes = {"densities": (0.1,), "blocks": (block,), "batch_size": 1, "sequence_length": 8, "vocabulary_size": 128}
StepBench("tiny", **sizes)._sparse_step(0.1, block)()
bench = StepBench("base", **sizes)
gc.collect()
ctypes.CDLL(None).malloc_trim(0)
before = status("VmRSS")
step = bench._sparse_step(0.1, block)
settle()
Path("/proc/self/clear_refs").write_text("5")
step(), step()
layers = sparse_layers(step.model).values()
others = sum(p.numel() for p in step.model.parameters()) - sum(layer.values.numel() for layer in layers)
dense = 16 * sum(layer.in_features * layer.out_features for layer in layers)
print(json.dumps({"peak": status("VmHWM") - before - 16 * others, "dense": dense}))
"""


def share_of_dense(program, block):
    """Peak memory over a dense weight's, its gradient's and Adam's moments'."""
    command = [sys.executable, "-c", MEASURE + program, *map(str, block)]
    # Whatever is large is mapped on its own, so that resident memory is what is alive and not what the heap keeps.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    measured = json.loads(output)
    if measured is None:
        pytest.skip("the native libraries were not built")
    return measured["peak"] / measured["dense"]


@pytest.mark.parametrize(
    ("block", "bound"),
    [
        ((1, 1), 0.16),
        ((4, 4), 0.12),
        ((16, 1), 0.12),
        ((16, 16), 0.12),
    ],
)
def test_memory_of_a_layer(block, bound):
    """Values, gradients, Adam's moments, indices and workspace."""
    assert 0.1 < share_of_dense(LAYER, block) <= bound


@pytest.mark.parametrize(
    ("block", "bound"),
    [
        ((16, 16), 0.12),
        pytest.param((4, 4), 0.12, marks=pytest.mark.slow),
        pytest.param((16, 1), 0.12, marks=pytest.mark.slow),
        pytest.param((1, 1), 0.16, marks=pytest.mark.slow),
    ],
)
def test_memory_of_a_whole_model(block, bound):
    """The same for all of Base's sparse layers, and its few activations; what building it takes does not count."""
    assert 0.1 < share_of_dense(MODEL, block) <= bound
