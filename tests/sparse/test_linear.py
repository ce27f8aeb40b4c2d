"""`linear` against torch with a dense masked weight: values, gradients, compilation, transforms, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils.checkpoint import checkpoint

import evergraft.sparse.linear as module
from evergraft import BlockTopology, EvergraftError
from evergraft.sparse.linear import linear
from evergraft.sparse.products import dense

BLOCKS = [(1, 1), (4, 4), (16, 16), (16, 1), (1, 16), (8, 2)]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 5e-3}


def problem(block=(4, 2), rows=3, columns=5, density=0.4, dtype=torch.float64, tokens=(7,), seed=0):
    topology = BlockTopology.random(rows * block[0], columns * block[1], block, density, np.random.default_rng(seed))
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(topology.active, *block, generator=generator, dtype=torch.float64).to(dtype)
    bias = torch.randn(topology.out_features, generator=generator, dtype=torch.float64).to(dtype)
    x = torch.randn(*tokens, topology.in_features, generator=generator, dtype=torch.float64).to(dtype)
    return x.requires_grad_(), values.requires_grad_(), topology, bias.requires_grad_()


def masked_weight(values, topology):
    """Block by block, the slow and certain way."""
    weight = torch.zeros(topology.out_features, topology.in_features, dtype=values.dtype)
    height, width = topology.block
    for slot, (row, column) in enumerate(zip(topology.rows.tolist(), topology.columns.tolist(), strict=True)):
        weight[row * height : (row + 1) * height, column * width : (column + 1) * width] = values[slot]
    return weight


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("density", [0.05, 0.5, 1.0])
def test_all_products_match_a_dense_weight(block, density, dtype):
    x, values, topology, bias = problem(block, density=density, dtype=dtype, tokens=(2, 9))
    y = linear(x, values, topology, bias)
    grad = torch.randn_like(y)
    y.backward(grad)
    weight = masked_weight(values.detach().double(), topology).requires_grad_()
    x2, bias2 = x.detach().double().requires_grad_(), bias.detach().double().requires_grad_()
    expected = F.linear(x2, weight, bias2)
    expected.backward(grad.double())
    pairs = [
        (y, expected),
        (x.grad, x2.grad),
        (values.grad, dense.gather(weight.grad, topology)),
        (bias.grad, bias2.grad),
    ]
    for got, want in pairs:
        assert got.dtype == dtype
        scale = want.abs().max().clamp(min=1)
        assert ((got.double() - want).abs().max() / scale) < TOLERANCE[dtype]


@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.integers(1, 5),
    st.integers(1, 5),
    st.floats(0.01, 1),
    st.lists(st.integers(0, 4), min_size=0, max_size=3),
    st.integers(0, 1000),
)
def test_any_shape(block, rows, columns, density, tokens, seed):
    x, values, topology, bias = problem(block, rows, columns, density, tokens=tuple(tokens), seed=seed)
    y = linear(x, values, topology, bias)
    y.sum().backward()
    expected = F.linear(x, masked_weight(values, topology), bias)
    torch.testing.assert_close(y, expected)
    assert x.grad.shape == x.shape
    assert values.grad.shape == values.shape


def test_gradcheck():
    x, values, topology, bias = problem()
    assert torch.autograd.gradcheck(lambda x, v, b: linear(x, v, topology, b), (x, values, bias))


@pytest.mark.parametrize("frozen", ["x", "values", "bias", None])
def test_called_at_once_and_as_operators_bits_are_the_same(frozen, monkeypatch):
    x, values, topology, bias = problem((16, 1), dtype=torch.float32)
    wanted = [t for name, t in {"x": x, "values": values, "bias": bias}.items() if name != frozen]
    for tensor in (x, values, bias):
        tensor.requires_grad_(any(tensor is other for other in wanted))
    results = []
    for watched in (False, True):
        monkeypatch.setattr(module, "is_watched", lambda *tensors, watched=watched: watched)
        y = linear(x, values, topology, bias)
        results.append((y, *torch.autograd.grad(y.sin().sum(), wanted)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_fake_tensors_never_reach_a_product():
    x, values, topology, bias = problem(dtype=torch.float32)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        y = linear(mode.from_tensor(x), mode.from_tensor(values), topology, mode.from_tensor(bias))
    assert (type(y), y.shape) == (FakeTensor, (7, topology.out_features))


def test_functional_gradient():
    x, values, topology, bias = problem()
    total = lambda values: linear(x, values, topology, bias).sin().sum()  # noqa: E731
    assert torch.equal(torch.func.grad(total)(values), torch.autograd.grad(total(values), values)[0])


def test_transforms_of_torch_func():
    """Gradients of each example, which no product computes, against a loop; in fp32, which native products take."""
    x, values, topology, bias = problem(tokens=(5,), dtype=torch.float32)
    total = lambda values, token: linear(token, values, topology, bias).sin().sum()  # noqa: E731
    together = torch.func.vmap(torch.func.grad(total), (None, 0))(values, x)
    apart = torch.stack([torch.autograd.grad(total(values, token), values)[0] for token in x])
    torch.testing.assert_close(together, apart)
    tangent = torch.ones_like(values)
    _, change = torch.func.jvp(lambda values: linear(x, values, topology), (values,), (tangent,))
    torch.testing.assert_close(change, linear(x, tangent, topology))


def test_strided_input_and_no_bias():
    x, values, topology, _ = problem(tokens=(6,))
    strided = torch.stack([x.detach()] * 2, -1)[..., 0].t().contiguous().t()
    assert not strided.is_contiguous()
    torch.testing.assert_close(
        linear(strided, values, topology), F.linear(x, masked_weight(values, topology)), check_stride=False
    )


@pytest.mark.parametrize("frozen", ["x", "values", "bias"])
def test_frozen_inputs_get_no_gradient(frozen):
    x, values, topology, bias = problem()
    {"x": x, "values": values, "bias": bias}[frozen].requires_grad_(False)
    linear(x, values, topology, bias).sum().backward()
    assert [t.grad is None for t in (x, values, bias)] == [frozen == n for n in ("x", "values", "bias")]


@pytest.mark.parametrize("op", ["forward", "input_gradient", "weight_gradient"])
def test_opcheck(op):
    x, values, topology, bias = problem(dtype=torch.float32)
    grad = torch.randn(7, topology.out_features)
    arguments = {
        "forward": (x, values, bias),
        "input_gradient": (grad, values.detach()),
        "weight_gradient": (grad, x.detach(), values.detach()),
    }[op]
    torch.library.opcheck(getattr(torch.ops.evergraft, op).default, (*arguments, *topology.tensors(), "dense"))


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compiles_whole(compiler):
    x, values, topology, bias = problem(dtype=torch.float32)
    compiled = torch.compile(lambda x, v, b: F.gelu(linear(x, v, topology, b)), fullgraph=True, backend=compiler)
    got = compiled(x, values, bias)
    got.sum().backward()
    gradients = [t.grad.clone() for t in (x, values, bias)]
    for t in (x, values, bias):
        t.grad = None
    expected = F.gelu(linear(x, values, topology, bias))
    expected.sum().backward()
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(gradients, [t.grad for t in (x, values, bias)])


def test_autocast():
    x, values, topology, bias = problem(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = linear(x, values, topology, bias)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert values.grad.dtype == x.grad.dtype == torch.float32


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(reentrant):
    x, values, topology, bias = problem()
    linear(x, values, topology, bias).square().sum().backward()
    expected = [t.grad.clone() for t in (x, values, bias)]
    for t in (x, values, bias):
        t.grad = None
    checkpoint(lambda x: linear(x, values, topology, bias), x, use_reentrant=reentrant).square().sum().backward()
    torch.testing.assert_close([t.grad for t in (x, values, bias)], expected, rtol=0, atol=0)


def test_refusals():
    x, values, topology, bias = problem()
    with pytest.raises(EvergraftError, match="no backend is called 'fast'; choose one of auto, "):
        linear(x, values, topology, bias, "fast")
    with pytest.raises(EvergraftError, match=r"expected x \[..., 10\]"):
        linear(x[:, 1:], values, topology, bias)
    with pytest.raises(EvergraftError, match="and values"):
        linear(x, values[1:], topology, bias)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda values, bias: (values.double(), bias), "expected values of torch.float32 on cpu"),
        (lambda values, bias: (values.to("meta"), bias), "got torch.float32 on meta and cpu"),
        (lambda values, bias: (values, bias[:1]), r"expected a bias \[12\] of torch.float32 on cpu, as x; got \[1\]"),
        (lambda values, bias: (values, bias.double()), "got .* of torch.float64"),
        (lambda values, bias: (values, bias.to("meta")), "on meta"),
    ],
)
def test_what_a_kernel_could_not_read_is_refused(wrong, says):
    x, values, topology, bias = (t.float() if isinstance(t, torch.Tensor) else t for t in problem())
    values, bias = wrong(values, bias)
    with pytest.raises(EvergraftError, match=says):
        linear(x, values, topology, bias)


def test_any_stride_of_a_bias():
    x, values, topology, bias = (t.detach().float() if isinstance(t, torch.Tensor) else t for t in problem())
    spread = bias.repeat_interleave(2)[::2]
    assert not spread.is_contiguous()
    assert torch.equal(linear(x, values, topology, spread), linear(x, values, topology, bias))
