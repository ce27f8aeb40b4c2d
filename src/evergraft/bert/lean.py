"""Modules that give a BERT a lean training step: what stands beside the products, in fewer passes over memory.

`use_lean_modules` puts them into a model that transformers has built. It changes neither what the model computes (but
for rounding, and for which elements a dropout drops) nor anything that its checkpoints depend on.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

from torch import Tensor, nn
from transformers.activations import GELUActivation
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.bert.modeling_bert import (
    BertIntermediate,
    BertLayer,
    BertOutput,
    BertSelfAttention,
    BertSelfOutput,
    eager_attention_forward,
)

from evergraft.kernels.dropout import Dropout
from evergraft.kernels.gelu import Gelu
from evergraft.kernels.residual_norm import residual_norm
from evergraft.sparse.bare import is_bare
from evergraft.sparse.feed_forward import feed_forward
from evergraft.sparse.joint import joint_linear
from evergraft.sparse.linear import autocast


def use_lean_modules(model: nn.Module) -> None:
    """Replace the modules inside `model`, in place, by lean ones that do the same.

    Dropouts, GELUs, BERT's attention and the outputs of its layers are replaced, and its layers compute both products
    of the feed-forward network together once these are sparse.
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


class LeanSelfAttention(BertSelfAttention):
    """Takes the place of a `BertSelfAttention`; query, key and value are one `joint_linear`.

    Under autocast they share one cast of the hidden states, also where they cannot share a product.

    Args:
        original: the module whose place this one takes. All that it holds is taken over.
    """

    def __init__(self, original: BertSelfAttention) -> None:
        nn.Module.__init__(self)
        vars(self).update(vars(original))

    def forward(  # type: ignore[override]
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend, as `BertSelfAttention` does.

        Args:
            hidden_states: floating [batch, length, hidden size].
            attention_mask: a mask as the model's attention function takes it, or None.
            past_key_values: a cache of a decoder, which transformers' own forward fills; or None.
            **kwargs: handed on to the attention function.

        Returns:
            [batch, length, hidden size], and the probabilities if the attention function gives them.
        """
        if past_key_values is not None:
            attended: Any = super().forward(hidden_states, attention_mask, past_key_values, **kwargs)
            return attended  # type: ignore[no-any-return]
        leading = hidden_states.shape[:-1]
        (hidden_states,) = autocast(hidden_states)
        projected = joint_linear(hidden_states, (self.query, self.key, self.value))
        heads = [each.view(*leading, -1, self.attention_head_size).transpose(1, 2) for each in projected]
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        dropout = self.dropout.p if self.training else 0.0
        mixed, weights = attend(self, *heads, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs)
        return mixed.reshape(*leading, -1).contiguous(), weights


_LEAN: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    nn.Dropout: lambda dropout: Dropout(dropout.p),
    GELUActivation: lambda _: Gelu(),
    BertSelfAttention: LeanSelfAttention,
    BertSelfOutput: LeanOutput,
    BertOutput: LeanOutput,
}


def _feed_forward_chunk(layer: BertLayer, attention_output: Tensor) -> Tensor:
    """`BertLayer.feed_forward_chunk`, in one function where nobody watches what its modules hand on."""
    first, last = layer.intermediate, layer.output
    if is_bare(first, BertIntermediate) and is_bare(first.intermediate_act_fn, Gelu) and is_bare(last, LeanOutput):
        y = feed_forward(attention_output, first.dense, last.dense)
        return residual_norm(y, attention_output, last.LayerNorm, last.dropout)
    return BertLayer.feed_forward_chunk(layer, attention_output)  # type: ignore[no-any-return,no-untyped-call]
