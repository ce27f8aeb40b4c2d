"""Gradient checkpointing, which lets a backward pass read what was saved once alone, gives the same gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from evergraft import SparseLinear
from evergraft.kernels import attention
from evergraft.kernels.dropout import dropout
from evergraft.kernels.gelu import gelu
from evergraft.kernels.residual_norm import residual_norm
from evergraft.kernels.softmax import dropped_softmax
from evergraft.kernels.vocabulary_loss import vocabulary_loss

LAYER = SparseLinear.random(32, 32, 0.25, (4, 4))
NORM = nn.LayerNorm(32)
VOCABULARY = nn.Linear(32, 50)
LABELS = torch.arange(8)


def heads(x: torch.Tensor) -> torch.Tensor:
    query = x.view(1, 8, 2, 16).transpose(1, 2)
    return attention.attention(nn.Module(), query, query, query, None)[0]


OPERATIONS = {
    "sparse layer": lambda x: LAYER(x),
    "attention": heads,
    "dropout": lambda x: dropout(x, 0.25),
    "gelu": gelu,
    "residual and norm": lambda x: residual_norm(x, 2 * x, NORM, nn.Dropout(0.25)),
    "softmax": lambda x: dropped_softmax(x, 0.25),
    "vocabulary loss": lambda x: vocabulary_loss(x, VOCABULARY.weight, VOCABULARY.bias, LABELS).loss,
}


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
