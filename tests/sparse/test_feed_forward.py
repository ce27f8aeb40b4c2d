"""`feed_forward` against the three calls that it stands for."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from evergraft import SparseLinear
from evergraft.bench.timing import torch_threads
from evergraft.evolution.gradients import GradientRecorder
from evergraft.kernels.gelu import gelu
from evergraft.kernels.native import runnable_tiers
from evergraft.sparse import feed_forward as module
from evergraft.sparse.feed_forward import feed_forward
from evergraft.sparse.products import BACKENDS
from evergraft.sparse.products.cpu import CpuBackend

pytestmark = pytest.mark.skipif(not runnable_tiers(), reason="no native library was built")

TOGETHER = "_SparseFeedForwardBackward"


def layers(block=(16, 1), width=64, hidden=256, bias=True, backend="auto"):
    generator = torch.Generator().manual_seed(1)
    up = SparseLinear.random(width, hidden, 0.25, block, bias, backend=backend)
    down = SparseLinear.random(hidden, width, 0.25, block, bias, seed=1, backend=backend)
    for parameter in (*up.parameters(), *down.parameters()):
        nn.init.normal_(parameter, std=0.25, generator=generator)
    return up, down


def tokens(n, width=64, seed=2):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def apart(x, up, down):
    return down(gelu(up(x)))


def outcome(network, x, up, down):
    """y, whether it was computed in one call, and the gradients of x and of all parameters, by name."""
    x = x.detach().requires_grad_(x.requires_grad)
    leaves = {"x": x} | {
        f"{name}.{key}": p for name, layer in (("up", up), ("down", down)) for key, p in layer.named_parameters()
    }
    y = network(x, up, down)
    wanted = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    gradients = torch.autograd.grad(y, list(wanted.values()), y.detach().sin()) if wanted else ()
    return y, _is_together(y), dict(zip(wanted, gradients, strict=True))


def _is_together(y):
    function = y.grad_fn
    while function is not None and function.name() != TOGETHER:
        function = next((above for above, _ in function.next_functions if above is not None), None)
    return function is not None


def assert_same(x, up, down, network=feed_forward):
    """The same bits, but for the bias of the first layer, whose sums are rounded otherwise."""
    y, together, gradients = outcome(network, x, up, down)
    expected, _, wanted = outcome(apart, x, up, down)
    assert torch.equal(y, expected)
    assert gradients.keys() == wanted.keys()
    for name, gradient in gradients.items():
        if name == "up.bias":
            tolerance = 1e-5 if x.dtype == torch.float32 else 1e-2
            torch.testing.assert_close(gradient, wanted[name], rtol=tolerance, atol=tolerance)
        else:
            assert torch.equal(gradient, wanted[name]), name
    return together


@pytest.mark.parametrize("tier", runnable_tiers())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("block", [(1, 1), (4, 1), (16, 1), (16, 16), (4, 4), (1, 16)])
def test_equals_three_calls(block, dtype, tier, monkeypatch):
    monkeypatch.setenv("EVERGRAFT_CPU_TIER", tier)
    up, down = (layer.to(dtype) for layer in layers(block))
    for n in (0, 1, 7, 50, 300):
        assert assert_same(tokens(n).to(dtype).requires_grad_(), up, down)


@pytest.mark.parametrize("block", [(1, 1), (16, 1)])
def test_equals_three_calls_in_many_batches(block):
    """A batch of the backward pass has up to 576 tokens; single weights are many enough for chunks."""
    up, down = layers(block, 128, 1024)
    assert assert_same(tokens(1000, 128).requires_grad_(), up, down)


def test_sizes_that_fill_no_vector():
    up, down = layers((3, 1), 15, 33)
    assert assert_same(tokens(50, 15).requires_grad_(), up, down)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_nothing(threads):
    up, down = layers((16, 1), 128, 1024)
    x = tokens(700, 128).requires_grad_()
    _, _, alone = outcome(feed_forward, x, up, down)
    with torch_threads(threads):
        assert assert_same(x, up, down)
        _, _, together = outcome(feed_forward, x, up, down)
    assert all(torch.equal(alone[name], together[name]) for name in alone)


def test_under_autocast():
    up, down = layers()
    x = tokens(50).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y, together, gradients = outcome(feed_forward, x, up, down)
        expected, _, wanted = outcome(apart, x, up, down)
    assert together
    assert (y.dtype, gradients["x"].dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(y, expected)
    for name in gradients:
        torch.testing.assert_close(gradients[name], wanted[name], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    "disguise",
    [lambda x: x.t().contiguous().t(), lambda x: x.expand(2, 40, 64), lambda x: x.view(5, 8, 64)[:, ::2]],
    ids=["columns side by side", "expanded", "every second token"],
)
def test_strides_do_not_matter(disguise):
    up, down = layers()
    assert assert_same(disguise(tokens(40)).requires_grad_(), up, down)


@pytest.mark.parametrize("values", [False, True])
def test_parameters_that_are_not_contiguous(values):
    up, down = layers((4, 4))
    for layer in (up, down):
        name = "values" if values else "bias"
        parameter = getattr(layer, name)
        strided = torch.stack([parameter.detach()] * 2, -1)[..., 0]
        setattr(layer, name, nn.Parameter(strided))
    assert assert_same(tokens(30).requires_grad_(), up, down)


@pytest.mark.parametrize("bias", [(False, False), (True, False), (False, True)])
def test_without_biases(bias):
    up, down = (
        each[0] if has else each[1]
        for has, each in zip(bias, zip(layers(), layers(bias=False), strict=True), strict=True)
    )
    assert assert_same(tokens(50).requires_grad_(), up, down)


NAMES = ("x", "up.values", "up.bias", "down.values", "down.bias")


@pytest.mark.parametrize("trained", range(1, 2 ** len(NAMES)))
def test_frozen_parameters(trained):
    up, down = layers()
    trained = {name for i, name in enumerate(NAMES) if trained >> i & 1}
    for name in NAMES[1:]:
        layer, key = name.split(".")
        {"up": up, "down": down}[layer].get_parameter(key).requires_grad_(name in trained)
    assert assert_same(tokens(50).requires_grad_("x" in trained), up, down)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(reentrant):
    up, down = layers()
    x = tokens(50).requires_grad_()
    again = lambda x, up, down: checkpoint(feed_forward, x, up, down, use_reentrant=reentrant)  # noqa: E731
    expected, got = [], []
    for network, to in ((feed_forward, expected), (again, got)):
        network(x, up, down).sin().sum().backward()
        to += [x.grad, *(p.grad for p in (*up.parameters(), *down.parameters()))]
        x.grad = None
        for layer in (up, down):
            layer.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_one_hidden_matrix_is_kept():
    up, down = layers()
    x, kept = tokens(50).requires_grad_(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        feed_forward(x, up, down)
    assert sum(tensor.shape == (50, 256) for tensor in kept) == 1
    assert sum(tensor.shape[:1] == (50,) for tensor in kept) == 2


def test_nothing_is_kept_where_no_gradient_is_asked(monkeypatch):
    up, down = layers()
    x, kept = tokens(50), []
    forward = CpuBackend.feed_forward
    monkeypatch.setattr(CpuBackend, "feed_forward", lambda *args: kept.append(args[-1]) or forward(*args))
    with torch.no_grad():
        y = feed_forward(x, up, down)
    assert torch.equal(y, apart(x, up, down))
    assert kept == [False]


def test_a_second_derivative_is_refused():
    up, down = layers()
    x = tokens(5).requires_grad_()
    (gradient,) = torch.autograd.grad(feed_forward(x, up, down).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(gradient.sum(), x)


def test_a_gradient_that_native_code_cannot_read():
    class Wrapped(torch.Tensor):
        pass

    up, down = layers()
    x = tokens(50).requires_grad_()
    y, grad = feed_forward(x, up, down), tokens(50, seed=3)
    leaves = [x, *up.parameters(), *down.parameters()]
    expected = torch.autograd.grad(y, leaves, grad, retain_graph=True)
    for got, wanted in zip(torch.autograd.grad(y, leaves, grad.as_subclass(Wrapped)), expected, strict=True):
        torch.testing.assert_close(got.as_subclass(torch.Tensor), wanted, rtol=1e-4, atol=1e-5)


def hooked(up, down):
    down.register_forward_pre_hook(lambda layer, inputs: (2 * inputs[0],))


def backward_hooked(up, down):
    up.register_full_backward_hook(lambda layer, of_input, of_output: (3 * of_input[0],))


def overridden(up, down):
    up.forward = lambda x: 2 * SparseLinear.forward(up, x)


def of_another_backend(up, down):
    up.backend = down.backend = "dense"


@pytest.mark.parametrize("change", [hooked, backward_hooked, overridden, of_another_backend])
def test_what_is_watched_or_changed_is_called(change):
    up, down = layers()
    change(up, down)
    assert not assert_same(tokens(20).requires_grad_(), up, down)


def test_other_layers_and_dtypes_are_called():
    up, down = layers()
    assert not assert_same(tokens(20).requires_grad_(), up, nn.Linear(256, 64))
    y = feed_forward(tokens(5).double(), up.double(), down.double())
    assert y.dtype == torch.float64
    assert not _is_together(y)


def test_a_layer_of_a_subclass_is_called():
    class Doubling(SparseLinear):
        def forward(self, x):
            return 2 * super().forward(x)

    up, down = layers()
    assert not assert_same(tokens(20).requires_grad_(), Doubling(up.topology), down)


def test_a_backend_of_ones_own_is_asked():
    class Counting(CpuBackend):
        calls = 0

        def forward(self, *args):
            Counting.calls += 1
            return super().forward(*args)

    BACKENDS.register("counting")(Counting())
    try:
        feed_forward(tokens(5), *layers(backend="counting"))
        assert Counting.calls == 2
    finally:
        BACKENDS.unregister("counting")


def test_recorded_gradients_are_those_of_the_layers():
    up, down = layers()
    x, recorder = tokens(20), GradientRecorder([up, down])
    recorder.start()
    feed_forward(x, up, down).sum().backward()
    for layer in (up, down):
        torch.testing.assert_close(recorder.gradient(layer, layer.topology.positions), layer.values.grad)


def test_compiles_whole():
    up, down = layers()
    x = tokens(20).requires_grad_()
    torch.compiler.reset()
    compiled = torch.compile(feed_forward, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, up, down), apart(x, up, down))


def test_transforms_of_torch_func():
    up, down = layers()
    x = tokens(5)
    by_token = torch.func.vmap(torch.func.grad(lambda token: feed_forward(token, up, down).sin().sum()))(x)
    x.requires_grad_()
    (expected,) = torch.autograd.grad(apart(x, up, down).sin().sum(), x)
    torch.testing.assert_close(by_token, expected, rtol=1e-4, atol=1e-5)


def test_gradients_by_the_reference(monkeypatch):
    up, down = layers()
    x = tokens(50).requires_grad_()
    _, _, expected = outcome(feed_forward, x, up, down)
    monkeypatch.setattr(CpuBackend, "supports", lambda *_: True)
    monkeypatch.setattr(CpuBackend, "feed_forward_gradients", lambda self, *args: module._gradients(*args[:-1]))
    _, _, got = outcome(feed_forward, x, up, down)
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_refused_as_by_the_layers():
    up, down = layers()
    with pytest.raises(Exception, match="expected x"):
        feed_forward(torch.randn(3, 65), up, down)
    with pytest.raises(Exception, match="expected x"):
        feed_forward(torch.randn(3, 64), up, copy.deepcopy(up))
