"""The products of the GPU kernels against the reference: on a GPU, else in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evergraft import BlockTopology
from evergraft.sparse.products import choose_backend
from tests.sparse.products.gpu_kernels import (
    BACKEND,
    DEVICE,
    NATIVE,
    TOLERANCE,
    on_device,
    problem,
    random_topology,
    tuned_kernels,
)

pytestmark = pytest.mark.usefixtures("gpu_backend")

BLOCKS = [
    (1, 1), (2, 2), (4, 4), (8, 8), (16, 16), (32, 32), (64, 64), (128, 128),
    (16, 1), (32, 1), (64, 1), (1, 16), (1, 64), (4, 1), (1, 4),
    (8, 2), (2, 8), (24, 16), (16, 48), (3, 5), (136, 1), (1, 136), (144, 160),
]  # fmt: skip


def named(topology, dtype=torch.float32, tokens=37, seed=0):
    return dict(zip(("x", "values", "bias", "grad"), problem(topology, dtype, tokens, seed), strict=True))


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
