"""The modules of a BERT that a lean training step has forms of its own for, and what takes their place."""

from __future__ import annotations

from torch import nn
from transformers.activations import GELUActivation
from transformers.models.bert.modeling_bert import BertOutput, BertSelfAttention, BertSelfOutput

from evergraft.kernels.attention import SelfAttention
from evergraft.kernels.dropout import Dropout
from evergraft.kernels.gelu import Gelu
from evergraft.kernels.residual_norm import Output, SelfOutput

LEAN: dict[type[nn.Module], type[nn.Module]] = {
    nn.Dropout: Dropout,
    BertSelfAttention: SelfAttention,
    GELUActivation: Gelu,
    BertSelfOutput: SelfOutput,
    BertOutput: Output,
}


def use_lean_modules(model: nn.Module) -> None:
    """Give every module of `model` that is exactly one of LEAN's the forward of its lean form, in place."""
    for module in model.modules():
        module.__class__ = LEAN.get(type(module), type(module))
