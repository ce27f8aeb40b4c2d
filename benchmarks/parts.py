"""The parts of a step beside the sparse products, before and after: the table in docs/performance.md.

Milliseconds of CPU time of one thread, the best of ROUNDS runs in turn, forward and backward; at Base's sizes, 32
sequences of 128 tokens. CPU time rather than wall-clock, so that other processes disturb less.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evergraft.kernels.allocator import keep_freed_memory
from evergraft.kernels.attention import attention
from evergraft.kernels.dropout import Dropout, dropout
from evergraft.kernels.gelu import gelu
from evergraft.kernels.residual_norm import residual_norm
from evergraft.kernels.vocabulary_loss import vocabulary_loss

ROUNDS = 7
BATCH, LENGTH, HIDDEN, HEADS, VOCABULARY, MASKED = 32, 128, 768, 12, 30522, 608
Run = Callable[[], Tensor]


def best(runs: dict[str, Run]) -> dict[str, float]:
    """Milliseconds of each run and the backward pass of what it returns."""
    fastest = dict.fromkeys(runs, float("inf"))
    for turn in range(ROUNDS + 1):
        for name, run in runs.items():
            start = time.thread_time()
            result = run()
            if result.requires_grad:
                result.sum().backward()
            elapsed = time.thread_time() - start
            fastest[name] = min(fastest[name], elapsed * 1e3) if turn else fastest[name]
    return fastest


def heads(dtype: torch.dtype) -> list[Tensor]:
    """Query, key and value [batch, heads, length, head size], as BERT makes them."""
    shape = BATCH, LENGTH, HEADS, HIDDEN // HEADS
    return [torch.randn(shape, dtype=dtype).transpose(1, 2).requires_grad_() for _ in range(3)]


def attentions(dtype: torch.dtype, probability: float) -> dict[str, Run]:
    """SDPA, and what the model uses."""
    inputs = heads(dtype)
    return {
        "before": lambda: F.scaled_dot_product_attention(*inputs, dropout_p=probability).transpose(1, 2).contiguous(),
        "after": lambda: attention(_Layer(), *inputs, None, dropout=probability)[0].contiguous(),
    }


class _Layer(nn.Module):
    is_causal = False


def vocabulary(autocast: bool) -> dict[str, Run]:
    """Logits of the masked tokens and their cross-entropy, and both in one."""
    hidden = torch.randn(MASKED, HIDDEN, requires_grad=True)
    weight, bias = nn.Parameter(torch.randn(VOCABULARY, HIDDEN) * 0.02), nn.Parameter(torch.zeros(VOCABULARY))
    labels = torch.randint(VOCABULARY, (MASKED,))

    def whole() -> Tensor:
        weight.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return F.cross_entropy(F.linear(hidden, weight, bias).float(), labels)

    def chunked() -> Tensor:
        weight.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return vocabulary_loss(hidden, weight, bias, labels).loss

    return {"before": whole, "after": chunked}


def dropouts() -> dict[str, Run]:
    """Of the hidden states of a layer."""
    x = torch.randn(BATCH * LENGTH, HIDDEN, requires_grad=True)
    return {"before": lambda: F.dropout(x, 0.1), "after": lambda: dropout(x, 0.1)}


def gelus(dtype: torch.dtype) -> dict[str, Run]:
    """Of a layer's feed-forward."""
    x = torch.randn(BATCH * LENGTH, 4 * HIDDEN, dtype=dtype, requires_grad=True)
    return {"before": lambda: F.gelu(x), "after": lambda: gelu(x)}


def residual_norms() -> dict[str, Run]:
    """Dropout, residual and norm after the attention or the feed-forward of a layer in bf16."""
    x = torch.randn(BATCH * LENGTH, HIDDEN, dtype=torch.bfloat16, requires_grad=True)
    residual = torch.randn(BATCH * LENGTH, HIDDEN, requires_grad=True)
    norm, drop = nn.LayerNorm(HIDDEN), Dropout(0.1)
    return {
        "before": lambda: norm(F.dropout(x, 0.1) + residual),
        "after": lambda: residual_norm(x, residual, norm, drop),
    }


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    written = {"48 MiB written": lambda: torch.ones(BATCH * LENGTH, 4 * HIDDEN)}
    mapped = best(written)
    keep_freed_memory()
    rows = {
        "vocabulary head and loss, fp32": best(vocabulary(False)),
        "vocabulary head and loss, bf16": best(vocabulary(True)),
        "attention of a layer, fp32": best(attentions(torch.float32, 0.0)),
        "attention of a layer, fp32, dropout 0.1": best(attentions(torch.float32, 0.1)),
        "attention of a layer, bf16": best(attentions(torch.bfloat16, 0.0)),
        "attention of a layer, bf16, dropout 0.1": best(attentions(torch.bfloat16, 0.1)),
        "dropout of the hidden states": best(dropouts()),
        "GELU of a layer, fp32": best(gelus(torch.float32)),
        "GELU of a layer, bf16": best(gelus(torch.bfloat16)),
        "dropout, residual and norm, bf16": best(residual_norms()),
        "48 MiB written": {"before": mapped["48 MiB written"], "after": best(written)["48 MiB written"]},
    }
    for part, figures in rows.items():
        print(f"| {part} | {figures['before']:.1f} | {figures['after']:.1f} |")
