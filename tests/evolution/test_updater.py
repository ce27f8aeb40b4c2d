"""TopologyUpdater: what changes, what stays, with every optimiser that can be carried."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from evergraft import EvergraftError, SparseLinear, TopologyUpdater, sparsify
from evergraft.sparse.conversion import random_generator
from tests.evolution.rules import grow

OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    "adamw fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "adam amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.01),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9),
    "sgd momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01),
}


def model(density: float = 0.25, block: tuple[int, int] = (4, 2)) -> nn.Module:
    net = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 16))
    sparsify(net, density, block, include="*", seed=5)
    return net


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(8, 16, generator=generator)
        optimizer.zero_grad()
        (net(x) - x).square().mean().backward()
        optimizer.step()


def by_position(layer: SparseLinear, tensor: torch.Tensor) -> dict[int, list]:
    return dict(zip(layer.topology.positions.tolist(), tensor.detach().tolist(), strict=True))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_survivors_keep_every_bit_and_the_new_start_at_zero(name):
    net = model()
    optimizer = OPTIMIZERS[name](net.parameters())
    train(net, optimizer)
    updater = TopologyUpdater(net, optimizer, 100, updates=10)
    layer = net[0]
    state = optimizer.state[layer.values]
    per_element = [key for key, value in state.items() if torch.is_tensor(value) and value.shape == layer.values.shape]
    assert per_element or name == "sgd"
    before = {key: by_position(layer, state[key]) for key in per_element} | {"values": by_position(layer, layer.values)}
    counters = {k: copy.deepcopy(v) for k, v in state.items() if k not in per_element}
    update = updater.update(0.5)[0]
    assert update.pruned == round(0.5 * layer.columns.numel())
    after = {key: by_position(layer, state[key]) for key in per_element} | {"values": by_position(layer, layer.values)}
    survivors = before["values"].keys() & after["values"].keys()
    assert len(survivors) == layer.columns.numel() - update.pruned
    for key in before:
        assert all(before[key][position] == after[key][position] for position in survivors)
        assert all(np.all(np.array(after[key][p]) == 0) for p in after[key].keys() - survivors)
    assert all(
        torch.equal(torch.as_tensor(counters[k]), torch.as_tensor(state[k]))
        for k in counters
        if counters[k] is not None
    )
    layer.topology.validate()
    train(net, optimizer)


def test_state_that_cannot_be_carried_is_refused_and_nothing_changes():
    net = model()
    optimizer = torch.optim.Adafactor(net.parameters(), lr=0.01)
    train(net, optimizer)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(EvergraftError, match=r"Adafactor keeps row_var .* cannot be carried"):
        TopologyUpdater(net, optimizer, 100, updates=10).update(0.5)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


@pytest.mark.parametrize("block", [(1, 1), (4, 4)])
def test_many_updates_against_a_dense_reference(block):
    """A dense model that masks, step by step the same: prune the smallest, grow what the generator says."""
    layer = SparseLinear.random(16, 24, 0.3, block, seed=2).double()
    net = nn.ModuleDict({"only": layer})
    updater = TopologyUpdater(net, torch.optim.SGD(net.parameters(), lr=1), 100, updates=10, seed=9)
    weight, mask = layer.to_dense().weight.detach().clone(), layer.topology.mask()
    for number in range(1, 11):
        noise = torch.randn(24, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(number))
        weight += noise * mask
        layer.copy_from(_as_linear(weight))
        topology = layer.topology.clone()
        updater.update(0.4)
        height, width = block
        norms = weight.view(24 // height, height, 16 // width, width).abs().sum((1, 3)).flatten()
        active = mask[::height, ::width].flatten().nonzero().flatten()
        pruned = active[norms[active].argsort(stable=True)[: round(0.4 * len(active))]]
        rng = random_generator(9, "only", number)
        grown = grow(topology, len(pruned), rng)
        small = mask[::height, ::width].clone()
        small.view(-1)[pruned] = False
        small.view(-1)[grown] = True
        kept = small.repeat_interleave(height, 0).repeat_interleave(width, 1)
        weight = weight * (kept & mask)
        mask = kept
        assert torch.equal(layer.topology.mask(), mask)
        assert torch.equal(layer.to_dense().weight, weight)


def _as_linear(weight: torch.Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    linear.weight.data = weight
    return linear


def test_step_updates_exactly_as_often_as_asked():
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0)
    updater = TopologyUpdater(net, optimizer, 40, updates=7)
    counts = [layer.columns.numel() for layer in updater.layers.values()]
    reports = [updater.step() for _ in range(40)]
    assert sum(map(bool, reports)) == 7 == updater.updates_done
    assert [layer.columns.numel() for layer in updater.layers.values()] == counts
    assert reports[-1] == []
    first = next(report for report in reports if report)
    assert [update.layer for update in first] == ["0", "2"]
    assert first[0].removed_new_ratio is None
    assert 0 < updater.explored <= 1
    assert 0 <= updater.removed_new_ratio <= 1


def test_the_same_seed_repeats_and_another_differs():
    def evolved(seed: int) -> torch.Tensor:
        net = model()
        updater = TopologyUpdater(net, torch.optim.SGD(net.parameters(), lr=0), 10, updates=3, seed=seed)
        for _ in range(10):
            updater.step()
        return net[0].columns

    assert torch.equal(evolved(1), evolved(1))
    assert not torch.equal(evolved(1), evolved(2))


def test_a_restored_updater_continues_identically():
    net = model()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    updater = TopologyUpdater(net, optimizer, 20, updates=6)
    for _ in range(9):
        train(net, optimizer, 1)
        updater.step()
    twin = copy.deepcopy(net)
    twin_optimizer = torch.optim.AdamW(twin.parameters(), lr=0.01)
    twin_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    restored = TopologyUpdater(twin, twin_optimizer, 20, updates=6)
    restored.load_state_dict(updater.state_dict())
    for _ in range(11):
        train(net, optimizer, 1)
        train(twin, twin_optimizer, 1)
        assert updater.step() == restored.step()
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), twin.state_dict().values(), strict=True))
    assert (updater.explored, updater.removed_new_ratio) == (restored.explored, restored.removed_new_ratio)


def test_foreign_state_refused():
    net, other = model(), model(0.25, (2, 2))
    state = TopologyUpdater(other, torch.optim.SGD(other.parameters(), lr=0), 10, updates=2).state_dict()
    with pytest.raises(EvergraftError, match="belongs to other layers"):
        TopologyUpdater(net, torch.optim.SGD(net.parameters(), lr=0), 10, updates=2).load_state_dict(state)


@pytest.mark.parametrize(("density", "exchanged"), [(1.0, 0), (0.75, 8)])
def test_no_more_is_exchanged_than_is_inactive(density, exchanged):
    net = nn.ModuleDict({"only": SparseLinear.random(16, 16, density, (4, 2))})
    updater = TopologyUpdater(net, torch.optim.SGD(net.parameters(), lr=0), 10, updates=2)
    assert updater.update(1.0)[0].pruned == exchanged


def test_a_left_over_gradient_is_dropped():
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net(torch.randn(2, 16)).sum().backward()
    TopologyUpdater(net, optimizer, 10, updates=2).update(0.5)
    assert net[0].values.grad.count_nonzero() == 0
    assert net[0].bias.grad.count_nonzero() > 0


def test_too_many_updates_refused():
    net = model()
    with pytest.raises(EvergraftError, match="6 updates in 10 steps"):
        TopologyUpdater(net, torch.optim.SGD(net.parameters(), lr=0), 10, updates=6)
    untold = TopologyUpdater(net, torch.optim.SGD(net.parameters(), lr=0), updates=6)
    with pytest.raises(EvergraftError, match="total_steps"):
        untold.step()


class Largest(TorchDispatchMode):
    """Notes the largest floating tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                self.elements = max(self.elements, tensor.numel())
        return result


def test_nothing_dense_is_made_by_construction_optimiser_or_update():
    with Largest() as largest:
        net = nn.ModuleDict({"only": SparseLinear.random(256, 256, 0.1, (16, 1))})
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
        net["only"].values.grad = torch.ones_like(net["only"].values)
        optimizer.step()
        TopologyUpdater(net, optimizer, 10, updates=2).update(0.5)
    assert largest.elements == net["only"].values.numel() < 0.11 * 256 * 256


def test_a_layer_that_the_optimiser_does_not_train_is_refused():
    dense = nn.Sequential(nn.Linear(16, 32), nn.Linear(32, 16))
    optimizer = torch.optim.AdamW(dense.parameters())
    sparsify(dense, 0.25, (4, 2), include="*")
    with pytest.raises(EvergraftError, match=r"the optimiser does not train 0\.values; make it after sparsify"):
        TopologyUpdater(dense, optimizer, 100, updates=10)


def test_a_frozen_layer_keeps_its_topology_and_weights():
    net = model()
    net[0].values.requires_grad_(False)
    before = copy.deepcopy(net[0].state_dict())
    optimizer = torch.optim.SGD([parameter for parameter in net.parameters() if parameter.requires_grad], lr=0.1)
    updater = TopologyUpdater(net, optimizer, 100, updates=10)
    assert [update.layer for update in updater.update(0.5)] == ["2"]
    assert all(torch.equal(before[key], tensor) for key, tensor in net[0].state_dict().items())


def test_state_kept_in_a_container_is_refused():
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    updater = TopologyUpdater(net, optimizer, 100, updates=10)
    optimizer.state[net[0].values]["inner"] = {"momentum": torch.zeros_like(net[0].values)}
    with pytest.raises(EvergraftError, match=r"SGD keeps inner as dict for 0\.values"):
        updater.update(0.5)


def test_state_of_other_topologies_is_refused():
    net = model()
    updater = TopologyUpdater(net, torch.optim.SGD(net.parameters(), lr=0), 10, updates=2)
    state = updater.state_dict()
    updater.update(0.5)
    with pytest.raises(EvergraftError, match="saved with other topologies than the model has"):
        updater.load_state_dict(state)


class Quantised(torch.Tensor):
    """State as torchao's low-bit optimisers keep it: a subclass of the parameter's shape."""


def test_state_of_a_tensor_subclass_is_refused_and_nothing_changes():
    net = model()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    train(net, optimizer)
    updater = TopologyUpdater(net, optimizer, 100, updates=10)
    state = optimizer.state[net[2].values]
    state["exp_avg"] = state["exp_avg"].as_subclass(Quantised)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(EvergraftError, match=r"AdamW keeps exp_avg as Quantised for 2\.values"):
        updater.update(0.5)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_rprop_is_refused_before_training():
    net = model()
    with pytest.raises(EvergraftError, match="Rprop keeps a step size for each weight"):
        TopologyUpdater(net, torch.optim.Rprop(net.parameters()), 100, updates=10)
