"""Growth rules that change the number of blocks: values, optimiser state and indices follow."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from evergraft import EvergraftError, TopologyUpdater, sparsify
from evergraft.evolution.context import UpdateContext
from evergraft.evolution.growth import GROWTH_RULES
from tests.evolution.rules import grow


def twice(context: UpdateContext) -> torch.Tensor:
    return grow(context.topology, 2 * context.count, context.rng)


def none(context: UpdateContext) -> torch.Tensor:
    return grow(context.topology, 0, context.rng)


@pytest.fixture
def changing(request):
    rule = request.param
    rule.changes_count = True
    GROWTH_RULES.register("changing")(rule)
    yield rule
    GROWTH_RULES.unregister("changing")
    del rule.changes_count


@pytest.mark.parametrize("changing", [twice, none], indirect=True)
def test_survivors_keep_value_and_moments_and_training_goes_on(changing):
    net = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 16))
    sparsify(net, 0.25, (4, 2), include="*", seed=5)
    layer, x = net[0], torch.randn(8, 16)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)

    def train() -> None:
        optimizer.zero_grad()
        net(x).square().sum().backward()
        optimizer.step()

    train()
    values, state = layer.values, optimizer.state[layer.values]
    kept = {"values": values, "exp_avg": state["exp_avg"], "exp_avg_sq": state["exp_avg_sq"]}
    before = {name: dict(zip(layer.topology.positions.tolist(), t.tolist(), strict=True)) for name, t in kept.items()}
    active = layer.topology.active
    update = TopologyUpdater(net, optimizer, 100, updates=10, grow_by="changing").update(0.5)[0]
    assert update.grown == (2 * update.pruned if changing is twice else 0)
    assert layer.topology.active == active - update.pruned + update.grown
    layer.topology.validate()
    assert layer.values is values  # the optimiser goes on training it
    assert layer.values.grad is None
    for name, tensor in {"values": values, **{key: state[key] for key in ("exp_avg", "exp_avg_sq")}}.items():
        after = dict(zip(layer.topology.positions.tolist(), tensor.tolist(), strict=True))
        for position, numbers in after.items():
            expected = before[name].get(position, [[0.0] * 2] * 4)
            assert numbers == expected or position not in before[name]
    moved = layer.values.detach().clone()
    train()
    assert not torch.equal(layer.values, moved)


@pytest.mark.parametrize("changing", [none], indirect=True)
def test_the_last_block_stays(changing):
    net = nn.Sequential(nn.Linear(16, 32))
    sparsify(net, 0.25, (4, 2), include="*")
    updater = TopologyUpdater(net, torch.optim.SGD(net.parameters(), lr=0.1), 10, updates=2, grow_by="changing")
    with pytest.raises(EvergraftError, match=r"growth rule 'changing', layer 0: all blocks were pruned and none grows"):
        updater.update(1.0)
    net[0].topology.validate()
