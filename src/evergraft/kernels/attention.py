"""Attention for whole batches without padding, by whatever computes it fastest on each device and in each precision.

Importing this module registers `attention` and its mask with transformers under the name `evergraft`, so that any
model of transformers that attends through its `AttentionInterface` can use them:

    from transformers import AutoModel

    from evergraft.kernels import attention

    model = AutoModel.from_pretrained(name, attn_implementation=attention.NAME)
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from evergraft.kernels.dropout import DropoutMask, draw_mask
from evergraft.kernels.native import DTYPES, call, serves
from evergraft.kernels.onednn import multiplies_bf16
from evergraft.kernels.slices import joined
from evergraft.kernels.softmax import dropped_softmax

NAME = "evergraft"
_VECTOR = 16  # the size of a native head is a multiple of this, the most lanes that a vector of any tier has


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
    """dropout(softmax(scaling * query key^T)) value, with the signature of transformers' `AttentionInterface`.

    On the CPU and without a mask the native library (native/attention.cpp) takes half the time of torch's
    `scaled_dot_product_attention` (SDPA) in fp32 and less than a quarter in bf16 (docs/performance.md). It needs heads
    whose size is a multiple of 16. With other heads, in bf16 or with dropout, SDPA would fall back to slow products on
    the CPU; there batched products and a softmax are used, in fp32 if the processor has no bf16 instructions.
    Everything else goes to SDPA.

    Args:
        module: the attention module that calls; only SDPA looks at it.
        query, key, value: floating [batch, heads, length, head size], of one dtype.
        attention_mask: a mask as SDPA takes it, or None.
        dropout: the probability that a probability of the attention becomes zero, in [0, 1).
        scaling: by default 1 / sqrt(head size).
        **kwargs: handed on to transformers' `sdpa_attention_forward`.

    Returns:
        [batch, length, heads, head size], of the dtype of `query`, and None in place of the probabilities.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    if attention_mask is None and _native_takes(query, key, value):
        operands = (tensor.transpose(1, 2) for tensor in (query, key, value))
        return _Attention.apply(*operands, scale, draw_mask(dropout)), None  # type: ignore[no-untyped-call]
    on_cpu, in_bf16 = query.device.type == "cpu", query.dtype == torch.bfloat16
    if on_cpu and in_bf16 and not multiplies_bf16():
        with torch.autocast("cpu", enabled=False):
            q, k, v = (tensor.float() for tensor in (query, key, value))
            mixed, _ = attention(module, q, k, v, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
        return mixed.to(query.dtype), None
    if attention_mask is None and on_cpu and (in_bf16 or dropout > 0):
        return _batched_products(query, key, value, scale, dropout), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)


def _batched_products(query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float) -> Tensor:
    """Attention of [batch, heads, length, head size] by two batched products and a softmax."""
    batch, heads, length, size = query.shape
    q, k, v = (tensor.reshape(batch * heads, -1, size) for tensor in (query, key, value))
    with torch.autocast("cpu", enabled=False):  # autocast would compute the softmax in fp32 and cast it back
        scores = torch.baddbmm(q.new_empty(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=scale)
        mixed = torch.bmm(dropped_softmax(scores, dropout), v)
    return mixed.view(batch, heads, length, size).transpose(1, 2)


def _native_takes(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether native/attention.cpp computes this: one dtype, one shape, and heads made of whole vectors."""
    return (
        serves(query, key, value)
        and query.dtype == key.dtype == value.dtype
        and query.shape == key.shape == value.shape
        and query.shape[-1] % _VECTOR == 0
    )


class _Heads(ctypes.Structure):
    """The structure `Heads` of native/attention.cpp."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("batch", "length", "heads", "size", "stride"))


class _Attention(torch.autograd.Function):
    """Native attention of [batch, length, heads, size], which keeps no scores: backward computes them again.

    Queries, keys and values that are slices of one tensor are read where they lie, and their gradients are such slices.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float, mask: DropoutMask) -> Tensor:
        heads, query, key, value = _laid_out(query, key, value)
        mixed = query.new_empty(query.shape)
        logarithms = query.new_empty(heads.batch, heads.heads, heads.length, dtype=torch.float32)
        ctx.scale, ctx.settings = scale, (ctypes.c_int(DTYPES[query.dtype]), *mask)
        call("attention", heads, scale, query, key, value, mixed, logarithms, *ctx.settings)
        ctx.save_for_backward(query, key, value, mixed, logarithms)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mixed, logarithms = ctx.saved_tensors
        heads, *operands = _laid_out(query, key, value)  # a hook may have kept them elsewhere
        batch, length, count, size = grad.shape
        if heads.stride == count * size:
            gradients = grad.new_empty(3, batch, length, count, size).unbind(0)
        else:
            gradients = grad.new_empty(batch, length, 3, count, size).unbind(2)
        results = (grad.contiguous(), *gradients)
        call("attention_backward", heads, ctx.scale, *operands, mixed, logarithms, *results, *ctx.settings)
        return *gradients, None, None


def _laid_out(query: Tensor, key: Tensor, value: Tensor) -> tuple[_Heads, Tensor, Tensor, Tensor]:
    """Operands [batch, length, heads, size] as the native functions take them: slices of one tensor, or contiguous."""
    batch, length, heads, size = query.shape
    operands = (query, key, value)
    if (
        all(each.stride()[2:] == (size, 1) for each in operands)
        and joined([each.flatten(2) for each in operands]) is not None
    ):
        return _Heads(batch, length, heads, size, 3 * heads * size), query, key, value
    return _Heads(batch, length, heads, size, heads * size), query.contiguous(), key.contiguous(), value.contiguous()


def mask(
    *,
    attention_mask: Tensor | None = None,
    allow_is_bidirectional_skip: bool = False,
    local_size: int | None = None,
    **kwargs: Any,
) -> Tensor | None:
    """The mask that transformers hands to `attention`: None for a whole batch, else the one that it makes for SDPA.

    While a graph is being compiled or captured, transformers 5.17 makes a mask even where nothing is to be hidden, and
    flash attention takes none.

    Args:
        attention_mask: which tokens of a batch are no padding, or None if all are tokens.
        allow_is_bidirectional_skip: whether every token may attend to every other one.
        local_size: how far attention reaches; None if it is not limited.
        **kwargs: handed on to transformers' `sdpa_mask`.
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
