"""What rules may answer: anything else is one sentence, and no layer is changed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from evergraft import EvergraftError, TopologyUpdater, sparsify
from evergraft.evolution.growth import GROWTH_RULES
from evergraft.evolution.pruning import PRUNING_RULES
from evergraft.sparse.layer import SparseLinear
from tests.evolution.rules import grow


@pytest.fixture
def answering():
    """A function that makes an updater whose rule answers sensibly for layer 0 and oddly for layer 2."""
    added = []

    def make(registry, answer, sensible) -> TopologyUpdater:
        registry.register("odd")(lambda context: (answer if context.layer == "2" else sensible)(context))
        added.append(registry)
        net = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 16))
        sparsify(net, 0.25, (4, 2), include="*", seed=5)
        field = {PRUNING_RULES: "prune_by", GROWTH_RULES: "grow_by"}[registry]
        return TopologyUpdater(net, torch.optim.SGD(net.parameters(), lr=0.1), 10, updates=2, **{field: "odd"})

    yield make
    for registry in added:
        registry.unregister("odd")


def refuses(updater: TopologyUpdater, says: str) -> None:
    layers: dict[str, SparseLinear] = updater.layers
    before = copy.deepcopy({name: layer.state_dict() for name, layer in layers.items()})
    with pytest.raises(EvergraftError, match=says):
        updater.update(0.5)
    for name, layer in layers.items():
        assert all(torch.equal(before[name][key], tensor) for key, tensor in layer.state_dict().items())
    assert updater.updates_done == 0


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda context: [0, 1], r"must be a tensor int64 \[n\] on cpu; got list"),
        (lambda context: None, "got NoneType"),
        (lambda context: torch.arange(context.count).float(), r"got torch.float32 \[8\]"),
        (lambda context: torch.arange(context.count)[None], r"got torch.int64 \[1, 8\]"),
        (lambda context: torch.arange(context.count) - 1, "must lie in"),
        (lambda context: torch.arange(context.count) + 10**9, "must lie in"),
        (lambda context: torch.arange(context.count, device="meta"), "must lie on cpu; got them on meta"),
        (lambda context: context.topology.positions[[0] * context.count], "at least one"),
    ],
)
@pytest.mark.parametrize("kind", ["pruning", "growth"])
def test_answers_that_are_refused(answering, kind, answer, says):
    if kind == "pruning":
        updater = answering(PRUNING_RULES, answer, PRUNING_RULES.get("l1"))
    else:
        updater = answering(GROWTH_RULES, answer, GROWTH_RULES.get("random"))
    refuses(updater, rf"^{kind} rule 'odd', layer 2: .*{says}")


def test_another_number_than_asked_for_is_refused(answering):
    pruning = answering(PRUNING_RULES, lambda context: torch.arange(context.count - 1), PRUNING_RULES.get("l1"))
    refuses(pruning, "^pruning rule 'odd', layer 2: 7 blocks were chosen, expected 8$")
    growth = answering(
        GROWTH_RULES,
        lambda context: grow(context.topology, 2 * context.count, context.rng),
        GROWTH_RULES.get("random"),
    )
    refuses(growth, "^growth rule 'odd', layer 2: 16 blocks were chosen, expected 8; a rule that changes the number")


def test_active_positions_cannot_grow(answering):
    updater = answering(
        GROWTH_RULES, lambda context: context.topology.positions[: context.count], GROWTH_RULES.get("random")
    )
    refuses(updater, "layer 2: grown positions must be inactive before the update")


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_a_share_outside_0_to_1_is_refused(answering, ratio):
    updater = answering(PRUNING_RULES, PRUNING_RULES.get("l1"), PRUNING_RULES.get("l1"))
    with pytest.raises(EvergraftError, match=r"the share of blocks to exchange must lie in \[0, 1\]; got"):
        updater.update(ratio)
