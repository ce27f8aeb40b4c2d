"""Every operation of the kernels and the sparse layer, as functions of an input [tokens, 32]."""

from __future__ import annotations

import torch
from torch import nn

from evergraft import SparseLinear
from evergraft.kernels import attention
from evergraft.kernels.dropout import dropout
from evergraft.kernels.gelu import gelu
from evergraft.kernels.residual_norm import residual_norm
from evergraft.kernels.softmax import dropped_softmax
from evergraft.kernels.vocabulary_loss import vocabulary_loss
from evergraft.sparse.feed_forward import feed_forward
from evergraft.sparse.joint import joint_linear

LAYER = SparseLinear.random(32, 32, 0.25, (4, 4))
LAYERS = [SparseLinear.random(32, 32, 0.25, (4, 4), seed=seed) for seed in range(3)]
UP, DOWN = SparseLinear.random(32, 64, 0.25, (4, 4)), SparseLinear.random(64, 32, 0.25, (4, 4))
NORM = nn.LayerNorm(32)
VOCABULARY = nn.Linear(32, 50)


class Attending(nn.Module):
    """An attention module as BERT's; without this attribute transformers takes it for causal."""

    is_causal = False


def heads(x: torch.Tensor) -> torch.Tensor:
    query = x.view(1, -1, 2, 16).transpose(1, 2)
    return attention.attention(Attending(), query, query, query, None)[0].reshape(-1, 32)


def joint_heads(x: torch.Tensor) -> torch.Tensor:
    parts = [y.view(1, -1, 2, 16).transpose(1, 2) for y in joint_linear(x, LAYERS)]
    return attention.attention(Attending(), *parts, None)[0].reshape(-1, 32)


OPERATIONS = {
    "sparse layer": LAYER,
    "feed-forward network": lambda x: feed_forward(x, UP, DOWN),
    "joint layers": lambda x: torch.cat(joint_linear(x, LAYERS), -1),
    "attention": heads,
    "attention of joint layers": joint_heads,
    "dropout": lambda x: dropout(x, 0.25),
    "gelu": gelu,
    "residual and norm": lambda x: residual_norm(x, 2 * x, NORM, nn.Dropout(0.25)),
    "softmax": lambda x: dropped_softmax(x, 0.25),
    "vocabulary loss": lambda x: vocabulary_loss(x, VOCABULARY.weight, VOCABULARY.bias, torch.arange(len(x))).loss,
}
