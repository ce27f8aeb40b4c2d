"""The BERT family by name: sizes, dropout, default learning rates (docs/method.md, sections 1 and 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Size:
    """One model of the family.

    Attributes:
        layers, hidden, heads: the encoder's layers, hidden size and attention heads; feed-forward is 4 x hidden wide.
        dropout: the probability for hidden states and attention.
        learning_rate: the paper's best peak rate for the dense model; None where the paper names none.
    """

    layers: int
    hidden: int
    heads: int
    dropout: float
    learning_rate: float | None = None


BERT_SIZES = {
    "tiny": Size(2, 128, 2, 0.0),
    "mini": Size(4, 256, 4, 0.0, 8e-4),
    "small": Size(4, 512, 8, 0.0, 4e-4),
    "medium": Size(8, 512, 8, 0.1, 2e-4),
    "base": Size(12, 768, 12, 0.1, 2e-4),
    "large": Size(24, 1024, 16, 0.1),
}


class EncoderShape(Protocol):
    """The sizes in a BertConfig that decide the shapes of its layers and what they cost."""

    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int


_LINEARS = {
    "attention.self.query": ("hidden_size", "hidden_size"),
    "attention.self.key": ("hidden_size", "hidden_size"),
    "attention.self.value": ("hidden_size", "hidden_size"),
    "attention.output.dense": ("hidden_size", "hidden_size"),
    "intermediate.dense": ("intermediate_size", "hidden_size"),
    "output.dense": ("hidden_size", "intermediate_size"),
}


def encoder_linears(config: EncoderShape) -> dict[str, tuple[int, int]]:
    """The sizes (out, in) of an encoder's fully connected layers, by their names in a `BertForPreTraining`."""
    return {
        f"bert.encoder.layer.{number}.{name}": (getattr(config, out), getattr(config, into))
        for number in range(config.num_hidden_layers)
        for name, (out, into) in _LINEARS.items()
    }


def default_learning_rate(config: EncoderShape) -> float:
    """The peak rate of a dense model, and of what is dense in a sparse one (docs/method.md, section 3).

    It is the paper's for a model of the family's size, else its fit exp(-0.44 log N - 0.47) over dense models, N the
    weights of the encoder. The paper tuned it for batches of 512 sequences.
    """
    for size in BERT_SIZES.values():
        if size.learning_rate and (size.layers, size.hidden) == (config.num_hidden_layers, config.hidden_size):
            return size.learning_rate
    weights = sum(out * into for out, into in encoder_linears(config).values())
    return math.exp(-0.44 * math.log(weights) - 0.47)


def default_encoder_rate(density: float) -> float:
    """How many times the rate of all else that of the encoder's matrices is: density^-0.6, which is 4 at 0.1.

    Embeddings, norms and heads are as dense as ever and keep the dense model's rate, whereas an output of a sparse
    layer sums fewer products. At density 0.1 four times was best in trials of a Tiny and a Mini (docs/log.md,
    2026-11-29); the exponent is the one that meets this and 1 for a dense model.
    """
    return math.pow(density, -0.6)


def learning_rate_factor(density: float) -> float:
    """eta(s) / eta(0) of the paper, which has one rate for all weights: exp(1.969 s^2 + 0.2905 s), s = 1 - density.

    See docs/method.md, section 3.
    """
    sparsity = 1 - density
    return math.exp(1.969 * sparsity**2 + 0.2905 * sparsity)
