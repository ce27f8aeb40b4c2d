"""Modules that give a BERT a lean training step: what stands beside the products, in fewer passes over memory.

`use_lean_modules` puts them into a model that transformers has built. It changes neither what the model computes (but
for rounding, and for which elements a dropout drops) nor anything that its checkpoints depend on.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation
from transformers.models.bert.modeling_bert import (
    BertIntermediate,
    BertLayer,
    BertOutput,
    BertSelfAttention,
    BertSelfOutput,
)

from evergraft.kernels.dropout import Dropout
from evergraft.kernels.gelu import Gelu
from evergraft.kernels.residual_norm import residual_norm
from evergraft.sparse.feed_forward import feed_forward, is_bare


def use_lean_modules(model: nn.Module) -> None:
    """Replace the modules inside `model`, in place, by lean ones that do the same.

    Dropouts, GELUs and the outputs of BERT's layers are replaced; BERT's attention casts its input once under autocast,
    and its layers compute both products of the feed-forward network together once these are sparse.
    Only modules of exactly these types count, not of their subclasses. Parameters, their names and their order, the
    keys of the state dict, dtypes and training modes stay as they are, and no random number is drawn. Hooks that were
    registered on a replaced module are lost, so call this on a fresh model.

    Example:
        >>> model = BertForPreTraining(BertConfig())
        >>> use_lean_modules(model)
        >>> model.bert.embeddings.dropout
        Dropout(p=0.1, inplace=False)
    """
    for name, module in list(model.named_children()):
        use_lean_modules(module)
        if type(module) in _LEAN:
            lean = _LEAN[type(module)](module)
            lean.training = module.training
            setattr(model, name, lean)
        elif type(module) is BertSelfAttention:
            module.register_forward_pre_hook(_cast_once)
        elif type(module) is BertLayer:
            module.feed_forward_chunk = MethodType(_feed_forward_chunk, module)  # type: ignore[method-assign]


class LeanOutput(nn.Module):
    """Takes the place of a `BertSelfOutput` or `BertOutput`; what follows its dense layer is one `residual_norm`.

    Args:
        original: the module whose place this one takes. Its submodules are taken over in their order.
    """

    dense: nn.Linear
    LayerNorm: nn.LayerNorm
    dropout: nn.Dropout

    def __init__(self, original: BertSelfOutput | BertOutput) -> None:
        super().__init__()
        for name, module in original.named_children():
            self.add_module(name, module)

    def forward(self, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
        """Compute layer norm(dropout(dense(hidden_states)) + input_tensor).

        Args:
            hidden_states: floating [batch, length, in_features].
            input_tensor: the residual, floating [batch, length, hidden size].

        Returns:
            [batch, length, hidden size].
        """
        return residual_norm(self.dense(hidden_states), input_tensor, self.LayerNorm, self.dropout)


_LEAN: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    nn.Dropout: lambda dropout: Dropout(dropout.p),
    GELUActivation: lambda _: Gelu(),
    BertSelfOutput: LeanOutput,
    BertOutput: LeanOutput,
}


def _cast_once(attention: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Cast the hidden states to the dtype of autocast before query, key and value each cast them for themselves."""
    if not inputs:  # the hidden states were passed by name; the three layers cast them
        return inputs
    hidden_states, *others = inputs
    device = hidden_states.device.type
    if torch.is_autocast_enabled(device):
        hidden_states = hidden_states.to(torch.get_autocast_dtype(device))
    return hidden_states, *others


def _feed_forward_chunk(layer: BertLayer, attention_output: Tensor) -> Tensor:
    """`BertLayer.feed_forward_chunk`, in one function where nobody watches what its modules hand on."""
    first, last = layer.intermediate, layer.output
    if (
        is_bare(first, BertIntermediate)
        and is_bare(first.intermediate_act_fn, Gelu)
        and isinstance(last, LeanOutput)
        and is_bare(last, LeanOutput)
    ):
        y = feed_forward(attention_output, first.dense, last.dense)
        return residual_norm(y, attention_output, last.LayerNorm, last.dropout)
    return BertLayer.feed_forward_chunk(layer, attention_output)  # type: ignore[no-any-return,no-untyped-call]
