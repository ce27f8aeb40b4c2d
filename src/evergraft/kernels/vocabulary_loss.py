"""Vocabulary head and cross-entropy in one: all logits [tokens, vocabulary], or their gradient, never exist at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from evergraft.bert.masking import IGNORED
from evergraft.kernels.native import is_transformed
from evergraft.kernels.onednn import has_onednn, onednn_linear

CHUNK = 2**23  # logits that exist at a time: 32 MiB in fp32, 274 tokens of BERT's vocabulary


class VocabularyLoss(NamedTuple):
    """The loss, and what it is made of.

    Attributes:
        loss: the mean of `nats` over the labels that count; 0 if none does. The one differentiable part.
        nats: [tokens], the cross-entropy of each; 0 where the label is ignored.
        correct: bool [tokens], whether the label's logit is the highest.
    """

    loss: Tensor
    nats: Tensor
    correct: Tensor


def vocabulary_loss(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> VocabularyLoss:
    """Cross-entropy of linear(hidden, weight, bias), with the values and gradients that torch gives for the two.

    Tokens are taken in chunks; the gradients of a chunk are computed beside its logits, so that backward has only to
    scale them. It can therefore be called once. Under autocast products are in the autocast dtype, as `F.linear`'s
    are; softmax and sums are in fp32 at least. A compiled model holds it as one operator, so that its chunks stay.
    Transforms of `torch.func` get torch's own operators, all logits at once.

    Args:
        hidden: floating [tokens, hidden].
        weight: [vocabulary, hidden], which may be tied to other parameters.
        bias: [vocabulary].
        labels: int64 [tokens]; -100 is ignored.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    if torch.compiler.is_compiling():
        differentiate = torch.is_grad_enabled() and any(t.requires_grad for t in (hidden, weight, bias))
        outputs = torch.ops.evergraft.vocabulary_loss(hidden, weight, bias, labels, dtype, differentiate)
        return VocabularyLoss(*outputs[:3])
    if is_transformed():
        return _in_one_piece(hidden, weight, bias, labels)
    return VocabularyLoss(*_VocabularyLoss.apply(hidden, weight, bias, labels, dtype))  # type: ignore[no-untyped-call]


def _in_one_piece(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> VocabularyLoss:
    logits = F.linear(hidden, weight, bias)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    counted = labels != IGNORED
    nats = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
    return VocabularyLoss(
        nats.sum() / counted.sum().clamp(min=1), nats.detach(), (logits.detach().argmax(1) == labels) & counted
    )


class _VocabularyLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor]:
        differentiate = any(ctx.needs_input_grad)
        loss, nats, correct, *gradients = _loss_and_gradients(hidden, weight, bias, labels, dtype, differentiate)
        ctx.gradients = gradients if differentiate else None
        ctx.mark_non_differentiable(nats, correct)
        return loss, nats, correct

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("backward through the vocabulary loss a second time: its gradients are handed out once")
        gradients, ctx.gradients = ctx.gradients, None
        if grad.device.type != "cpu" or grad != 1:
            for gradient in gradients:
                gradient *= grad
        return (*gradients, None, None)


Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@torch.library.custom_op("evergraft::vocabulary_loss", mutates_args=())
def _vocabulary_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, dtype: torch.dtype, differentiate: bool
) -> Outputs:
    return _loss_and_gradients(hidden, weight, bias, labels, dtype, differentiate)  # type: ignore[return-value]


@_vocabulary_loss.register_fake
def _(hidden, weight, bias, labels, dtype, differentiate):  # type: ignore[no-untyped-def]
    nats = labels.new_empty(labels.shape, dtype=torch.promote_types(dtype, torch.float32))
    correct = labels.new_empty(labels.shape, dtype=torch.bool)
    parameters = (hidden, weight, bias)
    gradients = [t.new_empty(t.shape if differentiate else 0) for t in parameters]
    return nats.new_empty(()), nats, correct, *gradients


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
    ctx.set_materialize_grads(False)  # zeros for the gradients of gradients
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*output[3:])


def _backward(ctx: Any, grad: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    return (*(gradient * grad for gradient in ctx.saved_tensors), None, None, None)


_vocabulary_loss.register_autograd(_backward, setup_context=_setup_context)


def _loss_and_gradients(
    hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, dtype: torch.dtype, differentiate: bool
) -> tuple[Tensor, ...]:
    """Loss, nats and correct; then the gradients of hidden, weight and bias, which are empty unless asked for."""
    wide = torch.promote_types(dtype, torch.float32)
    counted = labels != IGNORED
    share = counted.to(wide) / counted.sum().clamp(min=1)  # of each token in the mean
    targets = labels.where(counted, 0)
    nats, correct = torch.empty_like(share), torch.empty_like(counted)
    gradients = _Gradients(hidden, weight, bias) if differentiate else None
    with torch.autocast(hidden.device.type, enabled=False):
        x, w, b = hidden.to(dtype), weight.to(dtype), bias.to(dtype)
        for rows in _chunks(len(labels), len(weight)):
            logits = _linear(x[rows], w, b).to(wide)
            nats[rows], predicted, probabilities = _cross_entropy(logits, targets[rows])
            correct[rows] = predicted == targets[rows]
            del logits
            if gradients:
                gradients.add(rows, x[rows], w, probabilities, targets[rows], share[rows])
        nats *= counted
        correct &= counted
        loss = nats @ share
    if gradients is None:
        return loss, nats, correct, *(t.new_empty(0) for t in (hidden, weight, bias))
    return loss, nats, correct, gradients.hidden, gradients.weight, gradients.bias  # type: ignore[return-value]


def _cross_entropy(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Nats [chunk], predictions [chunk] and probabilities [chunk, vocabulary] of logits [chunk, vocabulary]."""
    probabilities = logits.softmax(1)
    highest, predicted = logits.max(1)
    # log p(target) = target - highest + log p(highest), of which nothing can underflow: p(highest) >= 1 / vocabulary.
    log_highest = probabilities.gather(1, predicted[:, None]).log()
    nats = highest - (logits.gather(1, targets[:, None]) + log_highest)[:, 0]
    return nats, predicted, probabilities


class _Gradients:
    """The gradients of the mean, summed over chunks; `weight` and `bias` are None before the first."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor) -> None:
        self.dtypes = weight.dtype, bias.dtype
        self.hidden = hidden.new_empty(hidden.shape)
        self.weight: Tensor | None = None
        self.bias: Tensor | None = None

    def add(
        self, rows: slice, x: Tensor, weight: Tensor, probabilities: Tensor, targets: Tensor, share: Tensor
    ) -> None:
        """Add a chunk: x [chunk, hidden], probabilities [chunk, vocabulary], targets and share [chunk]."""
        surprise = probabilities.scatter_add_(1, targets[:, None], -torch.ones_like(share)[:, None])
        self.bias = _add(self.bias, share @ surprise, self.dtypes[1])
        surprise = surprise.to(x.dtype)
        self.hidden[rows] = _linear(surprise, weight.t()) * share[:, None]
        self.weight = _add(self.weight, _linear(surprise.t(), (x * share[:, None].to(x.dtype)).t()), self.dtypes[0])


def _add(total: Tensor | None, part: Tensor, dtype: torch.dtype) -> Tensor:
    return part.to(dtype) if total is None else total.add_(part)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if x.device.type == "cpu" and x.dtype == torch.float32 and x.numel() and has_onednn():
        return onednn_linear(x, weight, bias)
    return F.linear(x, weight, bias)


def _chunks(tokens: int, vocabulary: int) -> list[slice]:
    """Equal chunks of at most CHUNK logits, or of one token; of no tokens, one empty chunk."""
    count = max(1, min(tokens, -(-tokens * vocabulary // CHUNK)))
    size = max(1, -(-tokens // count))
    return [slice(start, start + size) for start in range(0, max(tokens, 1), size)]
