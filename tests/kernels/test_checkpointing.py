"""Gradient checkpointing, which lets a backward pass read what was saved once alone, gives the same gradients."""

from __future__ import annotations

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from tests.kernels.operations import OPERATIONS


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("reentrant", [False, True])
def test_the_same_gradients(name, reentrant):
    operation = OPERATIONS[name]
    x = torch.randn(8, 32, generator=torch.Generator().manual_seed(1))
    gradients = []
    for call in (operation, lambda x: checkpoint(operation, x, use_reentrant=reentrant)):
        leaf = x.clone().requires_grad_()
        torch.manual_seed(0)
        call(leaf).square().sum().backward()
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)
