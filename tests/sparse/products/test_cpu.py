"""The native CPU products of every tier that this machine can run, against the reference."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from evergraft import BlockTopology, EvergraftError
from evergraft.bench.timing import torch_threads
from evergraft.kernels import native
from evergraft.kernels.native import runnable_tiers
from evergraft.sparse.linear import linear
from evergraft.sparse.products import choose_backend, cpu, dense
from evergraft.sparse.products.cpu import CpuBackend

pytestmark = pytest.mark.skipif(not runnable_tiers(), reason="evergraft was installed without its native CPU products")

SQUARE = [(n, n) for n in (1, 4, 8, 16, 32, 64)]
TALL = [(n, 1) for n in (4, 8, 16, 32, 64)]
ODD = [(2, 2), (3, 5), (12, 1), (1, 6), (6, 2), (2, 8), (24, 3), (48, 1), (1, 3), (20, 20), (16, 48), (48, 16)]
BLOCKS = [*SQUARE, *TALL, *(block[::-1] for block in TALL), *ODD]
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 1e-2}


def problem(block, grid=(3, 5), density=0.4, dtype=torch.float32, tokens=7, seed=0):
    out, into = grid[0] * block[0], grid[1] * block[1]
    topology = BlockTopology.random(out, into, block, density, np.random.default_rng(seed))
    generator = torch.Generator().manual_seed(seed)
    shapes = ((tokens, into), (topology.active, *block), (out,), (tokens, out))
    x, values, bias, grad = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    return topology, x, values, bias, grad


def all_products(backend, topology, x, values, bias, grad):
    return (
        backend.forward(x, values, topology, bias),
        backend.input_gradient(grad, values, topology),
        backend.weight_gradient(grad, x, topology),
    )


def check(backend, topology, *tensors):
    dtype = tensors[0].dtype
    expected = all_products(dense, topology, *(tensor.double() for tensor in tensors))
    for got, want in zip(all_products(backend, topology, *tensors), expected, strict=True):
        assert got.dtype == dtype
        assert got.shape == want.shape
        if want.numel():
            error = (got.double() - want).abs().max() / want.abs().max().clamp(min=1e-3)
            assert error < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block[0]}x{block[1]}")
@pytest.mark.parametrize("tier", runnable_tiers())
def test_grid(tier, block, dtype):
    for grid, density, tokens in itertools.product([(3, 5), (1, 1), (7, 2)], [0.05, 0.4, 1.0], [0, 1, 37, 130]):
        check(CpuBackend(tier), *problem(block, grid, density, dtype, tokens))


@pytest.mark.parametrize("tier", runnable_tiers())
@given(
    block=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    grid=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    density=st.floats(0.01, 1),
    tokens=st.integers(0, 200),
    dtype=st.sampled_from(list(TOLERANCE)),
    seed=st.integers(0, 1000),
)
def test_any_problem(tier, block, grid, density, tokens, dtype, seed):
    check(CpuBackend(tier), *problem(block, grid, density, dtype, tokens, seed))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("tier", runnable_tiers())
def test_single_weights_in_chunks(tier, dtype):
    for grid, density in (
        ((790, 810), 0.05),
        ((810, 790), 0.2),
        ((900, 100), 0.5),
        ((48, 4800), 0.05),
        ((4800, 48), 0.05),
        ((130, 150), 1.0),
    ):
        check(CpuBackend(tier), *problem((1, 1), grid, density, dtype, tokens=421))


def test_many_single_weights_are_copied_in_two_parts():
    check(CpuBackend(), *problem((1, 1), (2000, 3000), 0.1, tokens=400))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "block", [(1, 1), (4, 1), (16, 1), (1, 16), (4, 4), (16, 16)], ids=lambda block: f"{block[0]}x{block[1]}"
)
@pytest.mark.parametrize("tokens", [50, 421])
def test_infinite_inputs_reach_only_the_outputs_that_are_tied_to_them(tokens, block, dtype):
    topology, x, values, bias, grad = problem(block, (400 // block[0], 400 // block[1]), 0.1, dtype, tokens)
    x[:, ::7] = math.inf
    grad[:, ::7] = math.inf
    values = values.abs() + 0.1
    tied = topology.mask().float()
    infinite = torch.zeros(400).index_fill(0, torch.arange(0, 400, 7), 1)
    backend = CpuBackend()
    y, dx = backend.forward(x, values, topology, bias), backend.input_gradient(grad, values, topology)
    assert torch.equal(y.isinf(), (tied @ infinite > 0).expand(tokens, -1))
    assert torch.equal(dx.isinf(), (infinite @ tied > 0).expand(tokens, -1))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "block", [(1, 1), (16, 1), (1, 16), (4, 4), (16, 16)], ids=lambda block: f"{block[0]}x{block[1]}"
)
@pytest.mark.parametrize("tier", runnable_tiers())
def test_wide_layers_are_cut_into_several_tiles(tier, block, dtype):
    check(CpuBackend(tier), *problem(block, (48 // block[0], 4800 // block[1]), 0.05, dtype, tokens=300))
    check(CpuBackend(tier), *problem(block, (4800 // block[0], 48 // block[1]), 0.05, dtype, tokens=300))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "block", [(1, 1), (8, 1), (4, 4), (16, 1), (16, 16)], ids=lambda block: f"{block[0]}x{block[1]}"
)
@pytest.mark.parametrize("tier", runnable_tiers())
def test_skewed_topologies(tier, block, dtype):
    """All blocks in one row, or in one column: every other row and column is empty."""
    for axis in (0, 1):
        mask = torch.zeros(12 * block[0], 12 * block[1], dtype=torch.bool)
        mask.narrow(axis, 5 * block[axis], block[axis]).fill_(True)
        topology = BlockTopology.from_mask(mask, block)
        _, x, _, bias, grad = problem(block, (12, 12), dtype=dtype, tokens=50)
        check(CpuBackend(tier), topology, x, torch.randn(topology.active, *block).to(dtype), bias, grad)


@pytest.mark.parametrize(
    ("block", "grid"),
    [*((block, (9, 9)) for block in BLOCKS), ((1, 1), (300, 300))],
    ids=lambda pair: f"{pair[0]}x{pair[1]}",
)
def test_threads_do_not_change_a_bit(block, grid):
    backend, tensors = CpuBackend(), problem(block, grid, tokens=500)
    with torch_threads(1):
        alone = all_products(backend, *tensors)
    with torch_threads(3):
        together = all_products(backend, *tensors)
    assert all(torch.equal(mine, its) for mine, its in zip(alone, together, strict=True))


def test_strided_input():
    topology, x, values, bias, grad = problem((8, 2), tokens=9)
    for strided in (lambda t: torch.stack([t, t], -1)[..., 0], lambda t: F.pad(t, (3, 5))[:, 3:-5], lambda t: t[:1]):
        check(CpuBackend(), topology, strided(x), values, bias, strided(grad))
    expanded = torch.ones(1, 1).expand(9, topology.out_features)
    check(CpuBackend(), topology, x, values.transpose(1, 2).contiguous().transpose(1, 2), bias, expanded)


def test_not_a_number_stays_one():
    topology, x, values, bias, _ = problem((4, 4), density=1.0, dtype=torch.bfloat16)
    x[3, 2] = torch.nan
    y = CpuBackend().forward(x, values, topology, bias)
    assert y[3].isnan().all()
    assert not y[:3].isnan().any()


def test_chosen_automatically():
    x, values = torch.randn(2, 4), torch.randn(1, 4, 4)
    assert choose_backend("auto", x, values).name == "cpu"
    assert choose_backend("auto", x.double(), values.double()).name == "dense"
    assert CpuBackend().tier() == runnable_tiers()[-1]


def test_the_environment_names_a_tier(monkeypatch):
    monkeypatch.setenv("EVERGRAFT_CPU_TIER", "portable")
    assert CpuBackend().tier() == "portable"
    monkeypatch.setenv("EVERGRAFT_CPU_TIER", "sse9")
    with pytest.raises(EvergraftError, match=r"tier 'sse9' .* cannot run here; choose one of po"):
        CpuBackend().tier()


@pytest.mark.parametrize("op", ["forward", "input_gradient", "weight_gradient"])
def test_opcheck(op):
    topology, x, values, bias, grad = problem((4, 2))
    values, x = values.requires_grad_(), x.requires_grad_()
    arguments = {
        "forward": (x, values, bias.requires_grad_()),
        "input_gradient": (grad, values.detach()),
        "weight_gradient": (grad, x.detach(), values.detach()),
    }[op]
    torch.library.opcheck(getattr(torch.ops.evergraft, op).default, (*arguments, *topology.tensors(), "cpu"))


def test_autocast_computes_in_bf16():
    topology, x, values, bias, _ = problem((16, 1), tokens=40)
    values.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = linear(x, values, topology, bias, "cpu")
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert values.grad.dtype == torch.float32


@pytest.mark.parametrize("order", range(4))
def test_a_malformed_topology_never_reaches_a_kernel(order):
    topology, x, values, bias, grad = problem((1, 1), grid=(8, 8))
    broken = [tensor.clone() for tensor in topology.tensors()]
    broken[order][-1] += 10**6
    topology = BlockTopology((1, 1), *broken)
    with pytest.raises(EvergraftError, match="indices contradict each other"):
        all_products(CpuBackend(), topology, x, values, bias, grad)


def test_without_libraries_the_reference_serves_and_warns_once(monkeypatch, recwarn):
    cpu._warn_of_missing_libraries.cache_clear()
    monkeypatch.setattr(native, "runnable_tiers", lambda: ())
    topology, x, values, bias, _ = problem((4, 4))
    for _ in range(2):
        torch.testing.assert_close(linear(x, values, topology, bias), dense.forward(x, values, topology, bias))
    assert ["slow reference products" in str(warning.message) for warning in recwarn] == [True]
    with pytest.raises(EvergraftError, match="backend 'cpu' cannot multiply"):
        linear(x, values, topology, bias, "cpu")
    with pytest.raises(EvergraftError, match=r"tier 'avx2' .* cannot run here; choose one of none"):
        CpuBackend("avx2")
