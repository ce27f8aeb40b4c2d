"""A learning rate of their own for sparse values: which parameters get it, and what it does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from evergraft import EvergraftError, scale_sparse_rate, sparsify


def model() -> nn.Module:
    net = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 16))
    sparsify(net, 0.25, (4, 2), include="0")
    return net


def rates(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    names = {parameter: name for name, parameter in net.named_parameters()}
    return {names[parameter]: group["lr"] for group in optimizer.param_groups for parameter in group["params"]}


def test_values_get_the_factor_and_nothing_else_does():
    net = model()
    decayed = [net[0].values, net[2].weight]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": [net[0].bias, net[2].bias], "weight_decay": 0.0}], lr=0.01
    )
    scale_sparse_rate(net, optimizer, 4.0)
    assert rates(net, optimizer) == {"0.values": 0.04, "0.bias": 0.01, "2.weight": 0.01, "2.bias": 0.01}
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0, 0.1]


def test_a_group_of_values_alone_stays_one_group():
    net = model()
    optimizer = torch.optim.SGD([{"params": [net[0].values]}, {"params": net[2].parameters()}], lr=0.01)
    scale_sparse_rate(net, optimizer, 2.0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.02, 0.01]


def test_a_scheduler_keeps_the_factor_and_a_step_is_that_much_longer():
    net, twin = model(), model()
    twin.load_state_dict(net.state_dict())
    moved = []
    for each, factor in ((net, 1.0), (twin, 3.0)):
        optimizer = torch.optim.SGD(each.parameters(), lr=0.01)
        scale_sparse_rate(each, optimizer, factor)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
        before = {name: parameter.detach().clone() for name, parameter in each.named_parameters()}
        each(torch.ones(4, 16)).square().sum().backward()
        optimizer.step()
        scheduler.step()
        moved.append({name: parameter.detach() - before[name] for name, parameter in each.named_parameters()})
    for name in moved[0]:
        torch.testing.assert_close(
            moved[1][name], moved[0][name] * (3 if name == "0.values" else 1), rtol=1e-3, atol=1e-6
        )


def test_refusals():
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for factor in (0, -1, float("nan")):
        with pytest.raises(EvergraftError, match="the factor on a learning rate must be above 0"):
            scale_sparse_rate(net, optimizer, factor)
    with pytest.raises(EvergraftError, match="trains none of these parameters; make it after sparsify"):
        scale_sparse_rate(net, torch.optim.SGD(net[2].parameters(), lr=0.01), 2.0)
    with pytest.raises(EvergraftError, match="holds no SparseLinear"):
        scale_sparse_rate(nn.Linear(2, 2), optimizer, 2.0)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    with pytest.raises(EvergraftError, match="before a scheduler is made"):
        scale_sparse_rate(net, optimizer, 2.0)
