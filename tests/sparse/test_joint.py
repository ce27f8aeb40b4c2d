"""Layers that share an input give together what each gives by itself."""

from __future__ import annotations

import copy
import gc

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.flop_counter import FlopCounterMode

from evergraft import EvergraftError, SparseLinear
from evergraft.bench.timing import torch_threads
from evergraft.kernels.native import runnable_tiers
from evergraft.sparse import stack
from evergraft.sparse.joint import joint_linear
from evergraft.sparse.topology import INDICES, BlockTopology

pytestmark = pytest.mark.skipif(not runnable_tiers(), reason="no native library was built")

BLOCKS = [(1, 1), (4, 1), (16, 1), (1, 4), (4, 4), (16, 16)]


def layers(block=(4, 4), outs=(64, 32, 96), into=64, density=0.25, bias=True, dtype=torch.float32):
    made = [SparseLinear.random(into, out, density, block, bias, seed) for seed, out in enumerate(outs)]
    for layer in made:
        nn.init.normal_(layer.values)
        if bias:
            nn.init.normal_(layer.bias)
    return [layer.to(dtype) for layer in made]


def is_joint(outputs):
    return outputs[0].grad_fn.name() == "_JointLinearBackward"


def gradients(outputs, x, made, grads):
    parameters = [parameter for layer in made for parameter in layer.parameters() if parameter.requires_grad]
    return torch.autograd.grad(outputs, [x, *parameters], grads)


def compare(x, made, tolerance):
    """Outputs equal those of the layers bit for bit, and gradients up to a share of the largest number."""
    expected, got = [layer(x) for layer in made], joint_linear(x, made)
    assert is_joint(got)
    assert all(map(torch.equal, got, expected))
    grads = [torch.randn_like(y) for y in expected]
    theirs = gradients(expected, x, made, grads)
    whole = torch.cat(grads, -1)
    for layout in (grads, whole.split([y.shape[-1] for y in got], -1)):
        ours = gradients(joint_linear(x, made), x, made, layout)
        for a, b in zip(ours, theirs, strict=True):
            assert a.shape == b.shape
            assert (a - b).abs().max() <= tolerance * b.abs().max()


@pytest.mark.parametrize("block", BLOCKS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("leading", [(1,), (37,), (3, 5)], ids=str)
def test_equals_the_layers_by_themselves(block, dtype, bias, leading):
    made = layers(block, bias=bias, dtype=dtype)
    x = torch.randn(*leading, 64, dtype=dtype, requires_grad=True)
    compare(x, made, 1e-6 if dtype == torch.float32 else 2e-2)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
@pytest.mark.parametrize("tier", runnable_tiers())
def test_equals_them_at_the_sizes_of_a_model(block, tier, monkeypatch):
    monkeypatch.setenv("EVERGRAFT_CPU_TIER", tier)
    compare(torch.randn(250, 256, requires_grad=True), layers(block, (256,) * 3, 256, 0.1), 1e-6)


def test_one_dimension_and_no_tokens():
    made = layers()
    compare(torch.randn(64, requires_grad=True), made, 1e-6)
    x = torch.randn(0, 5, 64, requires_grad=True)
    outputs = joint_linear(x, made)
    assert [y.shape for y in outputs] == [(0, 5, 64), (0, 5, 32), (0, 5, 96)]
    assert all(not gradient.any() for gradient in gradients(outputs, x, made, [torch.ones_like(y) for y in outputs]))


def test_any_strides():
    made = layers()
    compare(torch.randn(64, 37).t().requires_grad_(), made, 1e-6)
    compare(torch.randn(5, 37, 80)[:, ::2, 7:71].requires_grad_(), made, 1e-6)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_nothing(threads):
    made, x = layers(), torch.randn(100, 64, requires_grad=True)
    results = []
    for count in (1, threads):
        with torch_threads(count):
            outputs = joint_linear(x, made)
            results.append((*outputs, *gradients(outputs, x, made, [torch.ones_like(y) for y in outputs])))
    assert all(map(torch.equal, *results))


def test_what_is_frozen_gets_no_gradient():
    made = layers()
    made[0].values.requires_grad_(False)
    made[2].bias.requires_grad_(False)
    compare(torch.randn(9, 64, requires_grad=True), made, 1e-6)
    x = torch.randn(9, 64)
    sum(y.sum() for y in joint_linear(x, made)).backward()
    assert made[0].values.grad is None
    assert made[2].bias.grad is None
    assert made[1].values.grad is not None


def test_an_output_may_be_unused_or_changed_in_place():
    made, x = layers(), torch.randn(9, 64, requires_grad=True)
    _, key, value = joint_linear(x, made)
    key.mul_(2)
    (got,) = torch.autograd.grad((key * value[:, :32]).sum(), x)
    (expected,) = torch.autograd.grad((made[1](x) * 2 * made[2](x)[:, :32]).sum(), x)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("narrow_first", [False, True])
def test_autocast_computes_as_the_layers_do(narrow_first):
    made, x = layers(), torch.randn(9, 64, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        compare(x.to(torch.bfloat16) if narrow_first else x, made, 2e-2)


def counts_stacks(monkeypatch):
    made = []
    real = stack.Stack.of
    monkeypatch.setattr(stack.Stack, "of", lambda topologies: made.append(1) or real(topologies))
    return made


def moved(layer, seed):
    """Another topology of as many blocks."""
    topology = BlockTopology.random(
        layer.out_features, layer.in_features, layer.block, 0.25, np.random.default_rng(seed)
    )
    assert topology.active == layer.topology.active
    return topology


def by_update(made):
    made[1].set_topology(moved(made[1], 10))


def by_another_count(made):
    topology = BlockTopology.random(32, 64, (4, 4), 0.5, np.random.default_rng(11))
    made[1].values = nn.Parameter(torch.randn(topology.active, 4, 4))
    made[1].set_topology(topology)


def by_loading(made):
    made[1].load_state_dict(other_state(made[1]))


def by_assigning(made):
    made[1].load_state_dict(other_state(made[1]), assign=True)


def other_state(layer):
    other = SparseLinear(moved(layer, 12))
    nn.init.normal_(other.values)
    return other.state_dict()


def by_swapping(made):
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        by_loading(made)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def behind_torchs_back(made):
    """Through aliases that share no version counter."""
    for name, index in zip(INDICES, moved(made[1], 13).tensors(), strict=True):
        getattr(made[1], name).numpy()[:] = index.numpy()


def by_moving_there_and_back(made):
    for layer in made:
        layer.to("meta")
    for layer, fresh in zip(made, layers(), strict=True):
        layer.to_empty(device="cpu")
        layer.load_state_dict(fresh.state_dict())
    by_update(made)


def by_replacing_a_buffer(made):
    by_update(made)
    for name in INDICES:
        setattr(made[1], name, getattr(made[1], name).clone())


CHANGES = [
    by_update,
    by_another_count,
    by_loading,
    by_assigning,
    by_swapping,
    behind_torchs_back,
    by_moving_there_and_back,
    by_replacing_a_buffer,
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("back", [False, True])
def test_no_topology_is_stale(change, back):
    made, x = layers(), torch.randn(9, 64, requires_grad=True)
    before = [copy.deepcopy(layer.state_dict()) for layer in made]
    compare(x, made, 1e-6)
    change(made)
    compare(x, made, 1e-6)
    if back and change is not by_another_count:
        for layer, state in zip(made, before, strict=True):
            layer.load_state_dict(state)
        compare(x, made, 1e-6)


def test_a_topology_is_stacked_once_until_it_changes(monkeypatch):
    stacks = counts_stacks(monkeypatch)
    made, x = layers(), torch.randn(9, 64)
    for _ in range(3):
        joint_linear(x, made)
    for layer in made:
        layer.columns.copy_(layer.columns.clone())  # as DDP rewrites buffers
    joint_linear(x, made)
    assert len(stacks) == 1
    by_update(made)
    joint_linear(x, made)
    joint_linear(x, made)
    assert len(stacks) == 2


def test_stacks_are_valid_and_go_with_their_layers():
    made = layers((1, 1), density=0.1)
    stacked = stack.stack_of(made).topology
    stacked.validate()
    assert torch.equal(stacked.mask(), torch.cat([layer.topology.mask() for layer in made]))
    before = len(stack._STACKS)
    del made
    gc.collect()
    assert len(stack._STACKS) < before


def test_layers_in_several_groups_and_copies():
    made, x = layers(outs=(64, 64, 64)), torch.randn(9, 64, requires_grad=True)
    compare(x, made, 1e-6)
    compare(x, made[:2], 1e-6)
    compare(x, made[::-1], 1e-6)
    twin = copy.deepcopy(made)
    by_update(made)
    compare(x, twin, 1e-6)
    compare(x, made, 1e-6)
    compare(x, [made[0], made[0]], 1e-6)


@pytest.mark.parametrize("name", ["values", "columns"])
def test_what_is_rewritten_before_backward_is_noticed(name):
    made, x = layers(), torch.randn(9, 64, requires_grad=True)
    y = joint_linear(x, made)[0]
    with torch.no_grad():
        getattr(made[2], name).mul_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def hooked(register):
    def disturb(made):
        getattr(made[1], register)(lambda *_: None)

    return disturb


class Special(SparseLinear):
    pass


def patched(made):
    forward = made[1].forward
    made[1].forward = lambda x: forward(x) + 1


DISTURBANCES = {
    "a dense layer": lambda made: made.__setitem__(1, nn.Linear(64, 32)),
    "another block": lambda made: made.__setitem__(1, SparseLinear.random(64, 32, 0.25, (4, 1))),
    "another backend": lambda made: setattr(made[1], "backend", "dense"),
    "the reference": lambda made: [setattr(layer, "backend", "dense") for layer in made],
    "no bias": lambda made: setattr(made[1], "bias", None),
    "a subclass": lambda made: made.__setitem__(1, Special(made[1].topology)),
    "a patched forward": patched,
    **{
        register: hooked(register)
        for register in (
            "register_forward_hook",
            "register_forward_pre_hook",
            "register_full_backward_hook",
            "register_full_backward_pre_hook",
        )
    },
}


@pytest.mark.parametrize("disturb", DISTURBANCES.values(), ids=DISTURBANCES)
def test_other_layers_are_called_one_by_one(disturb):
    made, x = layers(), torch.randn(9, 64)
    disturb(made)
    outputs = joint_linear(x, made)
    assert not is_joint(outputs)
    assert all(torch.equal(y, layer(x)) for y, layer in zip(outputs, made, strict=True))


def test_one_layer_or_none():
    made, x = layers(), torch.randn(9, 64)
    assert joint_linear(x, []) == ()
    assert torch.equal(joint_linear(x, made[:1])[0], made[0](x))


def test_hooks_on_all_modules_see_each_layer():
    made, seen = layers(), []
    with register_module_forward_hook(lambda module, *_: seen.append(module)):
        joint_linear(torch.randn(9, 64), made)
    assert seen == made


def test_doubles_go_one_by_one():
    made = layers(dtype=torch.float64)
    x = torch.randn(9, 64, dtype=torch.float64)
    assert all(torch.equal(y, layer(x)) for y, layer in zip(joint_linear(x, made), made, strict=True))


def test_what_does_not_fit_is_refused_by_the_layers():
    made = layers()
    with pytest.raises(EvergraftError, match="expected x"):
        joint_linear(torch.randn(9, 32), made)
    with pytest.raises(EvergraftError, match=r"expected values of torch.bfloat16"):
        joint_linear(torch.randn(9, 64).bfloat16(), made)
    with torch.no_grad():
        made[1].values = nn.Parameter(made[1].values[1:])
    with pytest.raises(EvergraftError, match="expected x"):
        joint_linear(torch.randn(9, 64), made)


def test_transforms_and_compilers_see_the_layers():
    made, x = layers(), torch.randn(3, 9, 64)

    def total(x):
        return sum(y.square().sum() for y in joint_linear(x, made))

    expected = torch.autograd.grad(total(x.requires_grad_()), x)[0]
    close = {"rtol": 1e-5, "atol": 1e-4}
    torch.testing.assert_close(torch.func.grad(total)(x.detach()), expected, **close)
    torch.testing.assert_close(torch.vmap(torch.func.grad(total))(x.detach()), expected, **close)
    torch.compiler.reset()
    compiled = torch.compile(total, backend="eager", fullgraph=True)
    torch.testing.assert_close(torch.autograd.grad(compiled(x), x)[0], expected, **close)
    for layer in made:
        layer.requires_grad_(False)  # a trace takes them as constants
    traced = torch.jit.trace(lambda x: joint_linear(x, made), torch.randn(2, 64), check_trace=False)
    torch.testing.assert_close(traced(x[0]), joint_linear(x[0], made))


def test_dispatch_modes_see_operators():
    made = layers()
    with FlopCounterMode(display=False):
        assert not is_joint(joint_linear(torch.randn(9, 64), made))


def test_forward_without_gradients():
    made, x = layers(), torch.randn(9, 64)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            outputs = joint_linear(x, made)
        assert all(torch.equal(y, layer(x)) for y, layer in zip(outputs, made, strict=True))
    compare(x.requires_grad_(), made, 1e-6)  # with the stack that inference made
