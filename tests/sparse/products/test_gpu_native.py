"""What only a GPU can show: graphs, waiting, memory, tuning, and a training run. `make test-gpu` runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from transformers import TrainerCallback

from evergraft import BlockTopology, SparseLinear
from evergraft.bert.sizes import BERT_SIZES
from evergraft.sparse.linear import linear
from evergraft.training.pretrain import pretrain, resume
from tests.sparse.products.gpu_kernels import NATIVE

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not NATIVE, reason="needs a GPU, and torch sees none"),
    pytest.mark.usefixtures("gpu_backend"),
]

BLOCKS = [(64, 64), (16, 16), (16, 1), (1, 16), (1, 1)]


def layer_and_input(block, seed=0, tokens=512):
    layer = SparseLinear.random(256, 512, 0.1, block, seed=seed, backend="gpu").cuda()
    return layer, torch.randn(tokens, 256, device="cuda", requires_grad=True)


def gradients(layer, x, name):
    y = linear(x, layer.values, layer.topology, layer.bias, name)
    return (y, *torch.autograd.grad(y.square().sum(), (x, layer.values, layer.bias)))


@pytest.mark.parametrize("block", BLOCKS)
def test_a_graph_replays_on_the_topology_of_the_day(block):
    """What was captured reads the topology anew: an update between replays, in place, is followed."""
    layer, x = layer_and_input(block)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        gradients(layer, x, "gpu")
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = gradients(layer, x, "gpu")
    rng = np.random.default_rng(1)
    for _ in range(2):
        graph.replay()
        torch.testing.assert_close(captured, gradients(layer, x, "dense"), rtol=1e-4, atol=1e-3)
        topology = BlockTopology.random(512, 256, block, 0.1, rng)
        layer.set_topology(BlockTopology(block, *(tensor.cuda() for tensor in topology.tensors())))


@pytest.mark.parametrize("block", BLOCKS)
def test_the_host_never_waits(block):
    layer, x = layer_and_input(block)
    gradients(layer, x, "gpu")
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        gradients(layer, x, "gpu")
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_stack_compiles_whole(mode):
    layers = [SparseLinear.random(256, 256, 0.2, (32, 32), seed=seed, backend="gpu") for seed in range(3)]
    model = nn.Sequential(*(part for layer in layers for part in (layer, nn.GELU()))).cuda()
    x = torch.randn(128, 256, device="cuda")
    expected = model(x)
    compiled = torch.compile(model, fullgraph=True, mode=mode)
    for _ in range(3):
        torch.testing.assert_close(compiled(x).clone(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("block", [(64, 64), (16, 16), (32, 1)])
@pytest.mark.parametrize("name", ["base", "large"])
def test_memory_falls_with_density(name, block, record_property):
    """Peak of values, gradients, Adam's moments, indices and workspace against the dense encoder's, without indices."""
    size = BERT_SIZES[name]
    hidden, wide = size.hidden, 4 * size.hidden
    shapes = [(hidden, hidden)] * 4 + [(hidden, wide), (wide, hidden)]
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    start = torch.cuda.memory_allocated()
    layers = nn.ModuleList(
        SparseLinear.random(*shape, 0.1, block, backend="gpu").cuda() for _ in range(size.layers) for shape in shapes
    )
    optimizer = torch.optim.AdamW(layers.parameters(), fused=True)
    for _ in range(2):
        for layer in layers:
            layer(torch.randn(256, layer.in_features, device="cuda", requires_grad=True)).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
    dense = 16 * size.layers * sum(into * out for into, out in shapes)  # bytes: weight, gradient, two moments
    ratio = (torch.cuda.max_memory_allocated() - start) / dense
    record_property("memory_ratio", ratio)
    assert ratio <= 0.12


def test_tiles_are_measured_once_and_kept_on_disk(tmp_path):
    program = (
        "import torch; from evergraft import SparseLinear\n"
        "layer = SparseLinear.random(256, 256, 0.2, (32, 32), backend='gpu').cuda()\n"
        "layer(torch.randn(4096, 256, device='cuda'))\n"
    )
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_PRINT_AUTOTUNING": "1"}
    first, second = (
        subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    )
    assert "best config selected" in first.stdout
    assert "best config selected" not in second.stdout


class NoWaiting(TrainerCallback):
    """From the third step on, fails if the host waits for the GPU between the start of a step and its last line."""

    def on_step_begin(self, args, state, control, **kwargs):
        torch.cuda.set_sync_debug_mode("error" if state.global_step > 2 else "default")

    def on_optimizer_step(self, args, state, control, **kwargs):
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("block", ["16x16", "16x1"])
def test_pretraining_follows_the_reference(block, compiled, small_recipe, tmp_path):
    settings = {"device": "cuda", "block": block, "dropout": 0.0}
    reference = pretrain(small_recipe(backend="dense", **settings), tmp_path / "dense")
    torch.compiler.reset()
    counters.clear()
    result = pretrain(
        small_recipe(backend="gpu", compile=compiled, **settings), tmp_path / "gpu", callbacks=[NoWaiting()]
    )
    assert result["validation_mlm_loss"] == pytest.approx(reference["validation_mlm_loss"], rel=0.02)
    if compiled:  # whole, and captured: the step, and the line that `check_compiler` compiles
        assert not counters["graph_break"]
        assert counters["stats"]["unique_graphs"] == 2
        assert counters["inductor"]["cudagraph_skips"] == 0


def test_parts_of_a_batch_add_up_in_a_compiled_run(small_recipe, tmp_path):
    settings = {"device": "cuda", "dropout": 0.0, "backend": "gpu", "compile": True}
    whole, parts = (
        pretrain(small_recipe(accumulate=count, **settings), tmp_path / str(count))["validation_mlm_loss"]
        for count in (1, 4)
    )
    assert parts == pytest.approx(whole, rel=0.02)


def test_a_compiled_run_with_dropout_resumes(small_recipe, tmp_path):
    """Not bit for bit, as on the CPU: the compiler adds up the gradients of embeddings in any order."""
    recipe = small_recipe(device="cuda", dropout=0.1, backend="gpu", compile=True)
    whole = pretrain(recipe, tmp_path / "run")
    for path in (tmp_path / "run").glob("*"):
        if path.name in ("result.json", "checkpoint-20", "checkpoint-24"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    again = resume(tmp_path / "run")
    assert again["steps"] == whole["steps"]
    assert again["validation_mlm_loss"] == pytest.approx(whole["validation_mlm_loss"], rel=0.02)
