"""The GPU backend as a part of torch: operators, compilation, autocast and training; when it serves at all."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from evergraft import SparseLinear, TopologyUpdater
from evergraft.sparse.linear import linear
from tests.sparse.products.gpu_kernels import BACKEND, DEVICE, NATIVE, problem, random_topology

pytestmark = pytest.mark.usefixtures("gpu_backend")


@pytest.mark.parametrize("op", ["forward", "input_gradient", "weight_gradient"])
def test_opcheck(op):
    topology = random_topology((16, 2))
    x, values, bias, grad = problem(topology)
    arguments = {"forward": (x, values, bias), "input_gradient": (grad, values), "weight_gradient": (grad, x, values)}
    if op == "forward":
        [tensor.requires_grad_() for tensor in arguments[op]]
    torch.library.opcheck(getattr(torch.ops.evergraft, op).default, (*arguments[op], *topology.tensors(), BACKEND))


@pytest.mark.parametrize("compiler", ["aot_eager", *(["inductor"] if NATIVE else [])])
def test_compiles_whole(compiler):
    topology = random_topology((16, 16))
    x, values, bias, _ = (t.requires_grad_() for t in problem(topology))

    def layer(x, values, bias):
        return F.gelu(linear(x, values, topology, bias, BACKEND))

    results = []
    for function in (layer, torch.compile(layer, fullgraph=True, backend=compiler)):
        y = function(x, values, bias)
        results.append((y, *torch.autograd.grad(y.square().sum(), (x, values, bias))))
    torch.testing.assert_close(results[1], results[0])


def test_autocast():
    topology = random_topology((16, 16))
    x, values, bias, _ = (t.requires_grad_() for t in problem(topology))
    with torch.autocast(DEVICE, torch.bfloat16):
        y = linear(x, values, topology, bias, BACKEND)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert values.grad.dtype == torch.float32


def train(name, block):
    """A small network on a fixed batch, its topology updated twice; the losses and the last values."""
    torch.manual_seed(0)
    layers = [SparseLinear.random(32, 64, 0.3, block, backend=name), SparseLinear.random(64, 32, 0.3, block, seed=1)]
    layers[1].backend = name
    model = nn.Sequential(layers[0], nn.GELU(), layers[1])
    for layer in layers:
        layer.reset_parameters(0.2, torch.Generator().manual_seed(3))
    model.to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    updater = TopologyUpdater(model, optimizer, total_steps=9, updates=3)
    x = torch.randn(48, 32, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    losses = []
    for _ in range(9):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), x.flip(1))
        loss.backward()
        optimizer.step()
        updater.step()
        losses.append(loss.item())
    return losses, [layer.to_dense().weight.detach() for layer in layers]


@pytest.mark.parametrize("block", [(16, 16), (16, 1)])
def test_training_follows_the_reference(block):
    (losses, weights), (reference_losses, reference_weights) = train(BACKEND, block), train("dense", block)
    assert losses[-1] < losses[0]
    assert losses == pytest.approx(reference_losses, rel=1e-4)
    torch.testing.assert_close(weights, reference_weights, rtol=1e-3, atol=1e-4)


def test_only_tensors_on_a_gpu_are_taken():
    from evergraft.sparse.products import gpu

    topology = random_topology((4, 4))
    x, values, _, _ = (tensor.cpu() for tensor in problem(topology))
    assert not gpu.supports(x, values)


@pytest.mark.parametrize("prelude", ["import sys; sys.modules['triton'] = None", "import sys"], ids=["without", "with"])
def test_triton_is_not_needed_before_the_first_product(prelude):
    """Whether Triton is installed or not, a layer multiplies on the CPU without importing it."""
    program = f"{prelude}; import torch; from evergraft import SparseLinear; "
    program += "SparseLinear.random(8, 8, 0.5, (4, 4))(torch.ones(2, 8)); assert not sys.modules.get('triton')"
    subprocess.run([sys.executable, "-c", program], check=True)
