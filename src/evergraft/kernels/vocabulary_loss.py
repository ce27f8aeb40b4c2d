"""A vocabulary head and its cross-entropy in one, so that the logits of all tokens never exist at once.

For BERT's vocabulary of 30,522 words the logits [tokens, vocabulary] and their gradient would be the largest tensors of
a training step. Here tokens are taken in chunks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from evergraft.kernels.native import is_transformed
from evergraft.kernels.onednn import has_onednn, onednn_linear

CHUNK = 2**23  # logits that exist at a time: 32 MiB in fp32, 274 tokens of BERT's vocabulary
IGNORED = -100  # the label of a token that has none; the default of torch.nn.functional.cross_entropy


class VocabularyLoss(NamedTuple):
    """The loss and its parts for each token; only `loss` is differentiable.

    Attributes:
        loss: a scalar, the mean of `nats` over the tokens whose label is not ignored; 0 if there are none.
        nats: [tokens], the cross-entropy of each token in nats; 0 where the label is ignored.
        correct: bool [tokens], whether the label's logit is the highest; False where the label is ignored.
    """

    loss: Tensor
    nats: Tensor
    correct: Tensor


def vocabulary_loss(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> VocabularyLoss:
    """`cross_entropy(linear(hidden, weight, bias), labels)` with the values and gradients of the two torch functions.

    The gradients of a chunk are computed beside its logits, so that backward only has to scale them. Under autocast the
    products are computed in the autocast dtype, as those of `torch.nn.functional.linear` are; softmax and sums are
    computed in fp32 at least. A compiled model holds the loss as one operator, which keeps the chunks. Transforms of
    `torch.func` get torch's own operators and all logits at once.

    Args:
        hidden: floating [tokens, hidden size].
        weight: floating [vocabulary, hidden size]; it may be tied to another parameter.
        bias: floating [vocabulary].
        labels: int64 [tokens], in [0, vocabulary), or -100 for a token that is ignored.

    Raises:
        RuntimeError: by a second backward through the same loss, outside a compiled model; gradients are not kept.

    Example:
        >>> loss = vocabulary_loss(hidden, head.weight, head.bias, labels).loss
        >>> loss.backward()
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
    """The vocabulary loss by torch's own operators, which hold all logits at once."""
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
            raise RuntimeError(
                "backward was called a second time through the vocabulary loss, which hands out its gradients once; "
                "compute the loss again first"
            )
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
    ctx.set_materialize_grads(False)  # or autograd would allocate zeros for the outputs that have no gradient
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*output[3:])


def _backward(ctx: Any, grad: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    return (*(gradient * grad for gradient in ctx.saved_tensors), None, None, None)


_vocabulary_loss.register_autograd(_backward, setup_context=_setup_context)


def _loss_and_gradients(
    hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, dtype: torch.dtype, differentiate: bool
) -> tuple[Tensor, ...]:
    """The parts of `VocabularyLoss`, then the gradients of hidden, weight and bias.

    The products are computed in `dtype`. Unless `differentiate`, the gradients are empty tensors.
    """
    wide = torch.promote_types(dtype, torch.float32)
    counted = labels != IGNORED
    share = counted.to(wide) / counted.sum().clamp(min=1)  # the weight of each token in the mean
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
    """Logits [chunk, vocabulary] -> nats [chunk], predictions [chunk] and probabilities [chunk, vocabulary]."""
    probabilities = logits.softmax(1)
    highest, predicted = logits.max(1)
    # log p(target) = logit(target) - highest + log p(highest). No term underflows, since p(highest) >= 1 / vocabulary.
    log_highest = probabilities.gather(1, predicted[:, None]).log()
    nats = highest - (logits.gather(1, targets[:, None]) + log_highest)[:, 0]
    return nats, predicted, probabilities


class _Gradients:
    """The gradients of the mean loss, summed over chunks; `weight` and `bias` are None before the first chunk."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor) -> None:
        self.dtypes = weight.dtype, bias.dtype
        self.hidden = hidden.new_empty(hidden.shape)
        self.weight: Tensor | None = None
        self.bias: Tensor | None = None

    def add(
        self, rows: slice, x: Tensor, weight: Tensor, probabilities: Tensor, targets: Tensor, share: Tensor
    ) -> None:
        """Add the gradients of one chunk.

        Args:
            rows: which tokens the chunk holds.
            x: [chunk, hidden size], in the dtype of the products, as `weight` is.
            weight: [vocabulary, hidden size].
            probabilities: [chunk, vocabulary]; overwritten.
            targets: int64 [chunk].
            share: [chunk], the weight of each token in the mean.
        """
        surprise = probabilities.scatter_add_(1, targets[:, None], -torch.ones_like(share)[:, None])
        self.bias = _add(self.bias, share @ surprise, self.dtypes[1])
        surprise = surprise.to(x.dtype)
        self.hidden[rows] = _linear(surprise, weight.t()) * share[:, None]
        self.weight = _add(self.weight, _linear(surprise.t(), (x * share[:, None].to(x.dtype)).t()), self.dtypes[0])


def _add(total: Tensor | None, part: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum, in `dtype`; it takes the place of `total`."""
    return part.to(dtype) if total is None else total.add_(part)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute x weight^T + bias, in fp32 on the CPU by oneDNN where torch has it."""
    if x.device.type == "cpu" and x.dtype == torch.float32 and x.numel() and has_onednn():
        return onednn_linear(x, weight, bias)
    return F.linear(x, weight, bias)


def _chunks(tokens: int, vocabulary: int) -> list[slice]:
    """Equal chunks of tokens, each of at most CHUNK logits or of one token; without tokens, one empty chunk."""
    count = max(1, min(tokens, -(-tokens * vocabulary // CHUNK)))
    size = max(1, -(-tokens // count))
    return [slice(start, start + size) for start in range(0, max(tokens, 1), size)]
