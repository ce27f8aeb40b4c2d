"""The GPU kernels against the reference backend: natively on a GPU, else in Triton's interpreter."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from evergraft import BlockTopology, SparseLinear, TopologyUpdater
from evergraft.sparse.products import backend_names, choose_backend, linear
from tests.sparse.products.gpu_kernels import BACKEND, DEVICE, NATIVE, backend, tuned_kernels

__all__ = ["backend"]
pytestmark = pytest.mark.usefixtures("backend")

BLOCKS = [
    (1, 1), (2, 2), (4, 4), (8, 8), (16, 16), (32, 32), (64, 64), (128, 128),
    (16, 1), (32, 1), (64, 1), (1, 16), (1, 64), (4, 1), (1, 4),
    (8, 2), (2, 8), (24, 16), (16, 48), (3, 5), (136, 1), (1, 136), (144, 160),
]  # fmt: skip
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}


def problem(topology, dtype=torch.float32, tokens=37, seed=0):
    """X, values, bias and the gradient of y."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (
        (tokens, topology.in_features),
        (topology.active, *topology.block),
        (topology.out_features,),
        (tokens, topology.out_features),
    )
    return [torch.randn(*shape, generator=generator).to(DEVICE, dtype) for shape in shapes]


def named(topology, dtype=torch.float32, tokens=37, seed=0):
    return dict(zip(("x", "values", "bias", "grad"), problem(topology, dtype, tokens, seed), strict=True))


def random_topology(block, rows=3, columns=5, density=0.3, seed=0):
    rng = np.random.default_rng(seed)
    return on_device(BlockTopology.random(rows * block[0], columns * block[1], block, density, rng))


def on_device(topology):
    return BlockTopology(topology.block, *(tensor.to(DEVICE) for tensor in topology.tensors()))


def products_of(name, x, values, topology, bias, grad):
    chosen = choose_backend(name, x, values)
    return (
        chosen.forward(x, values, topology, bias),
        chosen.input_gradient(grad, values, topology),
        chosen.weight_gradient(grad, x, topology),
    )


def check(x, values, topology, bias, grad):
    """All three products equal the reference's in float64, but for the rounding of the dtype."""
    got = products_of(BACKEND, x, values, topology, bias, grad)
    wide = [None if t is None else t.double() for t in (x, values, bias, grad)]
    want = products_of("dense", wide[0], wide[1], topology, wide[2], wide[3])
    for mine, reference in zip(got, want, strict=True):
        assert mine.dtype == x.dtype
        assert mine.shape == reference.shape
        assert mine.is_contiguous()
        if mine.numel():
            scale = reference.abs().max().clamp(min=1)
            assert ((mine.double() - reference).abs().max() / scale) < TOLERANCE[x.dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("density", [0.2, 1.0])
@pytest.mark.parametrize("block", BLOCKS)
def test_every_shape(block, density, dtype):
    topology = random_topology(block, density=density)
    check(topology=topology, **named(topology, dtype))


@pytest.mark.parametrize("tokens", [0, 1, 64, 65, 200])
@pytest.mark.parametrize("block", [(16, 16), (16, 1), (1, 16), (1, 1)])
def test_ragged_tokens(block, tokens):
    topology = random_topology(block, rows=2)
    check(topology=topology, **named(topology, tokens=tokens))


TILES = [(kernel, tile, block) for kernel, block in tuned_kernels().items() for tile in kernel.configs]


@pytest.mark.parametrize(("kernel", "tile", "block"), TILES, ids=[f"{k.base_fn.__name__}-{t}" for k, t, _ in TILES])
def test_every_tile_that_may_be_chosen(kernel, tile, block, monkeypatch):
    monkeypatch.setattr(kernel, "configs", [tile])
    topology = random_topology(block, rows=2, columns=9)
    check(topology=topology, **named(topology, tokens=270))


@settings(max_examples=25)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(1, 6),
    st.integers(1, 6),
    st.floats(0.01, 1),
    st.integers(0, 70),
    st.sampled_from(list(TOLERANCE)),
    st.integers(0, 1000),
)
def test_any_shape(block, rows, columns, density, tokens, dtype, seed):
    topology = random_topology(block, rows, columns, density, seed)
    check(topology=topology, **named(topology, dtype, tokens, seed))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("block", [(16, 16), (16, 1), (1, 16), (2, 2)])
@pytest.mark.parametrize("transposed", [False, True])
def test_long_groups_are_split(block, transposed, bias):
    """One full row (column) among nearly empty ones: the rows of the work list, the partial sums, the empty groups."""
    mask = torch.zeros(18, 36, dtype=torch.bool)
    mask[4] = True
    mask[[0, 7, 7, 17], [0, 3, 35, 8]] = True
    mask = mask.t() if transposed else mask
    mask = mask.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    topology = on_device(BlockTopology.from_mask(mask, block))
    arguments = named(topology, tokens=70)
    check(topology=topology, **(arguments if bias else arguments | {"bias": None}))


@pytest.mark.parametrize("block", [(16, 16), (1, 16)])
def test_many_tokens_are_split_among_the_programs_of_a_weight_gradient(block):
    topology = random_topology(block, rows=2, columns=2, density=1.0)
    check(topology=topology, **named(topology, tokens=1300))


@pytest.mark.parametrize("block", [(16, 1), (1, 16)])
def test_shares_are_written_in_slices_of_tokens(block, monkeypatch):
    from evergraft.sparse.products.gpu import spread

    monkeypatch.setattr(spread, "SHARES_BYTES", 1)
    topology = random_topology(block)
    check(topology=topology, **named(topology, tokens=3 * spread.FEWEST_TOKENS + 5))


@pytest.mark.parametrize("block", [(16, 16), (16, 1), (1, 1)])
def test_strided_operands(block):
    topology = random_topology(block)
    x, values, bias, grad = problem(topology)
    column_major = x.t().contiguous().t()
    sliced = torch.stack([grad, grad], dim=2)[:, :, 0]
    check(column_major, values, topology, bias, sliced)
    check(x.repeat(1, 2)[:, : x.shape[1]], values, topology, bias, grad[:, :1].expand_as(grad))
    check(x, values.transpose(1, 2).contiguous().transpose(1, 2), topology, bias[:1].expand_as(bias), grad)


@pytest.mark.parametrize("block", [(16, 16), (1, 16)])
def test_offsets_beyond_int32(block, tmp_path):
    """Rows of x and grad that lie more than 2^31 elements apart (a sparse file: nothing else of it exists)."""
    topology = random_topology(block)
    x, values, bias, grad = problem(topology, torch.float16, tokens=3)
    apart = 2**30 + 16
    if NATIVE:
        room = torch.empty(3 * apart, dtype=torch.float16, device=DEVICE)
    else:
        room = torch.from_file(str(tmp_path / "room"), shared=True, size=3 * apart, dtype=torch.float16)
    for name in ("x", "grad"):
        operand = {"x": x, "grad": grad}[name]
        far = room.as_strided(operand.shape, (apart, 1))
        far.copy_(operand)
        check(far if name == "x" else x, values, topology, bias, far if name == "grad" else grad)


@pytest.fixture
def exact_reductions():
    matmul = torch.backends.cuda.matmul
    matmul.allow_bf16_reduced_precision_reduction = False
    yield
    matmul.allow_bf16_reduced_precision_reduction = True


def test_shares_are_float32_where_torch_may_not_reduce_in_less(exact_reductions):
    from evergraft.sparse.products.gpu.spread import _shares_dtype

    assert [_shares_dtype(dtype) for dtype in TOLERANCE] == [torch.float32, torch.float32, torch.float16]
    topology = random_topology((16, 1))
    check(topology=topology, **named(topology, torch.bfloat16))


@pytest.mark.parametrize("block", [(16, 16), (16, 1), (2, 2)])
def test_infinities_stay_where_they_belong(block):
    """A padded tile must not meet an infinite input: zero times infinity would spread as NaN."""
    height, width = block
    topology = on_device(BlockTopology.from_positions(2 * height, 3 * width, block, torch.tensor([1, 4])))
    x, values, bias, _ = problem(topology)
    x[:, :width] = x[:, 2 * width :] = torch.inf  # the first and the last block column, which no block meets
    assert choose_backend(BACKEND, x, values).forward(x, values, topology, bias).isfinite().all()


def test_deterministic():
    topology = random_topology((16, 1), rows=6, columns=40)
    operands = named(topology, tokens=600)
    first, again = (products_of(BACKEND, topology=topology, **operands) for _ in range(2))
    assert all(torch.equal(mine, other) for mine, other in zip(first, again, strict=True))


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


def test_only_gpu_tensors_are_taken():
    from evergraft.sparse.products import gpu

    topology = random_topology((4, 4))
    x, values, _, _ = (t.cpu() for t in problem(topology))
    assert not gpu.supports(x, values)
    assert choose_backend("auto", x, values).name not in ("gpu", "interpreted")
    assert "gpu" in backend_names()


@pytest.mark.parametrize("prelude", ["import sys; sys.modules['triton'] = None", "import sys"])
def test_triton_is_not_needed_before_the_first_product(prelude):
    check_it = f"{prelude}; from evergraft import layer, products; assert not sys.modules.get('triton'); "
    check_it += "print(*products.backend_names())"
    printed = subprocess.run([sys.executable, "-c", check_it], capture_output=True, text=True, check=True).stdout
    assert ("gpu" in printed.split()) == ("None" not in prelude)
