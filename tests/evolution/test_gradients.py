"""Growth rules that look at gradients of blocks which do not exist, against a dense layer's gradient."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from evergraft import EvergraftError, SparseLinear, TopologyUpdater, sparsify
from evergraft.evolution.context import UpdateContext
from evergraft.evolution.gradients import GradientRecorder
from evergraft.evolution.growth import GROWTH_RULES
from evergraft.sparse.products.dense import gather
from evergraft.sparse.topology import BlockTopology
from tests.evolution.rules import grow


def largest(context: UpdateContext) -> torch.Tensor:
    """Grow where the gradient of twice as many candidates is largest."""
    inactive = context.topology.blocks - context.topology.active
    candidates = grow(context.topology, min(2 * context.count, inactive), context.rng)
    norms = context.gradient(candidates).flatten(1).norm(dim=1)
    return candidates[norms.argsort(descending=True)[: context.count]]


largest.uses_gradients = True


@pytest.fixture
def largest_by_name():
    GROWTH_RULES.register("largest")(largest)
    yield "largest"
    GROWTH_RULES.unregister("largest")


def model() -> nn.Module:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 16))
    sparsify(net, 0.25, (4, 2), include="*", seed=5)
    return net


def train(net: nn.Module, optimizer: torch.optim.Optimizer, micro_batches: int = 1) -> None:
    optimizer.zero_grad()
    for number in range(micro_batches):
        x = torch.randn(8, 16, generator=torch.Generator().manual_seed(number))
        (net(x) - x).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("leading", [(6,), (2, 3)])
def test_the_gradient_of_any_block_is_the_dense_layers(leading):
    net = model().double()
    dense = nn.Sequential(net[0].to_dense(), nn.Tanh(), net[2].to_dense())
    recorder = GradientRecorder([net[0], net[2]])
    recorder.start()
    for number in range(2):  # micro-batches
        x = torch.randn(*leading, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(number))
        for each in (net, dense):
            each(x).square().sum().backward()
    for layer, its in ((net[0], dense[0]), (net[2], dense[2])):
        positions = torch.tensor([5, 0, 31, 17])
        topology = BlockTopology.from_positions(layer.out_features, layer.in_features, layer.block, positions)
        expected = gather(its.weight.grad, topology)[positions.argsort().argsort()]
        torch.testing.assert_close(recorder.gradient(layer, positions), expected)
    recorder.stop()
    with pytest.raises(EvergraftError, match="no backward pass was recorded"):
        recorder.gradient(net[0], positions)


def test_an_update_waits_one_step_for_gradients(largest_by_name):
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    updater = TopologyUpdater(net, optimizer, 20, updates=2, grow_by=largest_by_name)
    updated = []
    for step in range(1, 21):
        train(net, optimizer, micro_batches=2)
        if updater.step():
            updated.append(step)
    assert updated == [6, 16]  # due at 5 and 15
    for layer in updater.layers.values():
        layer.topology.validate()


def test_a_restart_between_due_and_update_repeats_it(largest_by_name):
    def fresh(net):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        return optimizer, TopologyUpdater(net, optimizer, 20, updates=2, grow_by=largest_by_name)

    net = model()
    optimizer, updater = fresh(net)
    for _ in range(5):
        train(net, optimizer)
        updater.step()
    twin = copy.deepcopy(net)
    for layer in (twin[0], twin[2]):
        layer._forward_hooks.clear()  # of the other updater's recorder
    twin_optimizer, restored = fresh(twin)
    restored.load_state_dict(updater.state_dict())
    for _ in range(15):
        train(net, optimizer)
        train(twin, twin_optimizer)
        assert updater.step() == restored.step()
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), twin.state_dict().values(), strict=True))


def test_update_by_hand_has_no_gradients_to_offer(largest_by_name):
    net = model()
    before = copy.deepcopy(net.state_dict())
    updater = TopologyUpdater(net, torch.optim.SGD(net.parameters(), lr=0.1), 20, updates=2, grow_by=largest_by_name)
    with pytest.raises(EvergraftError, match="no backward pass was recorded"):
        updater.update(0.5)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def gradients_of(forward, net: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """The recorded gradient of all blocks of `net.sparse`, and the one that autograd gives a dense layer there."""
    sparse, dense = net.sparse, net.sparse.to_dense()
    recorder = GradientRecorder([sparse])
    recorder.start()
    forward(net).sum().backward()
    everywhere = torch.arange(sparse.topology.blocks)
    recorded = recorder.gradient(sparse, everywhere)
    recorder.stop()
    net.sparse = dense
    forward(net).sum().backward()
    topology = BlockTopology.from_positions(sparse.out_features, sparse.in_features, sparse.block, everywhere)
    return recorded, gather(dense.weight.grad, topology)


@pytest.mark.parametrize(
    "forward",
    [
        lambda net: net.sparse(net.x[0]).square(),
        lambda net: net.sparse(**{"x" if hasattr(net.sparse, "topology") else "input": net.x}).square(),
        lambda net: torch.relu_(net.sparse(net.x)) * 3,
        lambda net: net.sparse(net.x).mul_(net.x.new_full((), 2.0)).square(),
        lambda net: net.sparse(net.sparse(net.x)[:, :16]).square(),
    ],
    ids=["one-dimensional", "keyword", "in-place relu", "in-place product", "twice"],
)
def test_however_a_layer_is_called_its_gradient_is_the_dense_layers(forward):
    net = nn.Module()
    net.sparse = SparseLinear.random(16, 32, 0.25, (4, 2)).double()
    net.x = torch.randn(8, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(*gradients_of(forward, net))


def test_a_layer_that_takes_no_part_has_a_gradient_of_zero():
    net = model()
    recorder = GradientRecorder([net[0], net[2]])
    recorder.start()
    net[0](torch.randn(8, 16)).sum().backward()
    assert recorder.gradient(net[2], torch.tensor([3, 1])).eq(0).all()
    assert recorder.gradient(net[0], torch.tensor([3, 1])).ne(0).any()
