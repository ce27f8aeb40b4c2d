"""Attention for whole batches without padding: on each device and in each precision what is fastest there."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.models.bert.modeling_bert import BertSelfAttention

from evergraft.kernels.dropout import Choice, choose
from evergraft.kernels.dropout import dropout as drop
from evergraft.kernels.native import DTYPES, call, serves
from evergraft.kernels.onednn import multiplies_bf16

NAME = "evergraft"
_VECTOR = 16  # numbers that a native head must hold a multiple of: LANES of native/vector.hpp, at most


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What transformers calls for `attn_implementation="evergraft"`.

    On the CPU, where no mask is given, the native library (`native/attention.cpp`) takes half the time of torch's SDPA
    in fp32, less than a quarter in bf16 (docs/performance.md). It needs heads of whole vectors. For others, in bf16 and
    with dropout, where SDPA falls back to slow products, batched products and a softmax are used, in fp32 where the
    processor has no bf16 instructions. All else is SDPA.

    Args:
        query, key, value: [batch, heads, length, head size].
        attention_mask: as for SDPA, or None.

    Returns:
        [batch, length, heads, head size], and None for the probabilities.
    """
    batch, heads, length, size = query.shape
    scale = size**-0.5 if scaling is None else float(scaling)
    if attention_mask is None and _native_takes(query, key, value):
        operands = (tensor.transpose(1, 2) for tensor in (query, key, value))
        return _Attention.apply(*operands, scale, choose(dropout)), None  # type: ignore[no-untyped-call]
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and not multiplies_bf16():
        with torch.autocast("cpu", enabled=False):
            q, k, v = (tensor.float() for tensor in (query, key, value))
            mixed, _ = attention(module, q, k, v, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
        return mixed.to(query.dtype), None
    slow = query.device.type == "cpu" and (dropout > 0 or query.dtype == torch.bfloat16)
    if attention_mask is not None or not slow:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    q, k, v = (tensor.reshape(batch * heads, -1, size) for tensor in (query, key, value))
    with torch.autocast("cpu", enabled=False):  # which would take the softmax in fp32 and back
        scores = torch.baddbmm(q.new_empty(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=scale)
        mixed = torch.bmm(dropped_softmax(scores, dropout), v)
    return mixed.view(batch, heads, length, size).transpose(1, 2), None


def _native_takes(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether `native/attention.cpp` computes this: one dtype, one shape, and heads of whole vectors."""
    return (
        serves(query, key, value)
        and query.dtype == key.dtype == value.dtype
        and query.shape == key.shape == value.shape
        and query.shape[-1] % _VECTOR == 0
    )


class _Heads(ctypes.Structure):
    """`Heads` of native/attention.cpp."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("batch", "length", "heads", "size"))


class _Attention(torch.autograd.Function):
    """Query, key and value [batch, length, heads, size] -> the same; no scores are kept for the gradient."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float, choice: Choice) -> Tensor:
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        batch, length, heads, size = query.shape
        mixed, logarithms = torch.empty_like(query), query.new_empty(batch, heads, length, dtype=torch.float32)
        ctx.heads, ctx.scale = _Heads(batch, length, heads, size), scale
        ctx.settings = ctypes.c_int(DTYPES[query.dtype]), *choice
        call("attention", ctx.heads, scale, query, key, value, mixed, logarithms, *ctx.settings)
        ctx.save_for_backward(query, key, value, mixed, logarithms)
        return mixed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradients = [torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3]]
        operands = (*ctx.saved_tensors, grad.contiguous(), *gradients)
        call("attention_backward", ctx.heads, ctx.scale, *operands, *ctx.settings)
        return *gradients, None, None


class SelfAttention(BertSelfAttention):
    """transformers' own, of which query, key and value share one cast under autocast."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As `BertSelfAttention`: hidden states [batch, length, hidden]."""
        device = hidden_states.device.type
        if torch.is_autocast_enabled(device):
            hidden_states = hidden_states.to(torch.get_autocast_dtype(device))
        return super().forward(hidden_states, *args, **kwargs)


def dropped_softmax(scores: Tensor, probability: float) -> Tensor:
    """dropout(softmax(scores)), over the last dimension [..., length]; native where the library serves."""
    if not serves(scores):
        return drop(scores.softmax(-1), probability)
    y: Tensor = _DroppedSoftmax.apply(scores, choose(probability))  # type: ignore[no-untyped-call]
    return y


class _DroppedSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, choice: Choice) -> Tensor:
        scores = scores.contiguous()
        probabilities = torch.empty_like(scores)
        kept = torch.empty_like(scores) if choice.dropped else None
        ctx.settings = *_rows(scores), ctypes.c_int(DTYPES[scores.dtype]), *choice
        call("softmax", scores, probabilities, kept, *ctx.settings)
        ctx.save_for_backward(probabilities)
        return probabilities if kept is None else kept

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (probabilities,) = ctx.saved_tensors
        gradient = torch.empty_like(probabilities)
        call("softmax_backward", grad.contiguous(), probabilities, gradient, *ctx.settings)
        return gradient, None


def _rows(x: Tensor) -> tuple[int, int]:
    length = x.shape[-1]
    return x.numel() // max(length, 1), length


def mask(
    *,
    attention_mask: Tensor | None = None,
    allow_is_bidirectional_skip: bool = False,
    local_size: int | None = None,
    **kwargs: Any,
) -> Tensor | None:
    """What transformers makes for SDPA, but for whole batches None, in a graph too.

    In a compiled or captured graph transformers 5.17 makes a mask that hides nothing, and flash attention takes none.
    """
    if attention_mask is None and allow_is_bidirectional_skip and local_size is None:
        return None
    return sdpa_mask(
        attention_mask=attention_mask,
        allow_is_bidirectional_skip=allow_is_bidirectional_skip,
        local_size=local_size,
        **kwargs,
    )


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, mask)
