"""What training costs: FLOPs and bytes, from shapes alone (docs/method.md, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evergraft.bert.sizes import EncoderShape, encoder_linears
from evergraft.sparse.allocate import allocate
from evergraft.sparse.allocation import total
from evergraft.sparse.config import SparsityConfig
from evergraft.sparse.grid import block_grid

PASSES = 3  # forward, input gradient, weight gradient: each a product of the same size
FLOAT, INDEX = 4, 4  # bytes of an fp32 number and of an int32 index
MOMENTS = 2  # that Adam keeps for each weight


@dataclass(frozen=True)
class LinearCost:
    """A linear layer [out, in] of which `weights` exist, and the int32 `indices` that say which."""

    out_features: int
    in_features: int
    weights: int
    indices: int

    def flops(self, tokens: int) -> int:
        """FLOPs of the three products over `tokens` tokens; a multiply-add counts as two."""
        return PASSES * 2 * self.weights * tokens


@dataclass(frozen=True)
class Ledger:
    """The cost of an encoder; embeddings and heads are not counted.

    Attributes:
        linears: its fully connected layers.
        attention_flops: FLOPs of both attention products of all layers, forward and backward, for one sequence.
        sequence_length: tokens in a sequence.
        dense: the ledger of the dense twin; None for a dense encoder, which is its own twin.
    """

    linears: tuple[LinearCost, ...]
    attention_flops: int
    sequence_length: int
    dense: Ledger | None

    @property
    def flops_per_sequence(self) -> int:
        """Training FLOPs for one sequence: forward and backward."""
        return self.attention_flops + sum(linear.flops(self.sequence_length) for linear in self.linears)

    @property
    def density(self) -> float:
        """Weights that exist over weights of the dense twin."""
        dense = sum(linear.out_features * linear.in_features for linear in self.linears)
        return sum(linear.weights for linear in self.linears) / dense

    @property
    def bytes(self) -> dict[str, int]:
        """Bytes of the linear layers: fp32 weights and biases, their gradients, Adam's two moments, the indices."""
        numbers = FLOAT * sum(linear.weights + linear.out_features for linear in self.linears)
        indices = INDEX * sum(linear.indices for linear in self.linears)
        return {"weights": numbers, "gradients": numbers, "optimizer": MOMENTS * numbers, "indices": indices}

    def to_dict(self, sequences: int | None = None) -> dict[str, Any]:
        """The figures of `evergraft flops`, those of a run of `sequences` sequences too."""
        dense = self.dense or self
        figures: dict[str, Any] = {
            "flops_per_sequence": self.flops_per_sequence,
            "flops_per_sequence_dense": dense.flops_per_sequence,
            "flops_ratio": self.flops_per_sequence / dense.flops_per_sequence,
            "density": self.density,
            "bytes": self.bytes,
            "bytes_dense": dense.bytes,
            "bytes_ratio": sum(self.bytes.values()) / sum(dense.bytes.values()),
        }
        if sequences is not None:
            figures["flops_total"] = sequences * self.flops_per_sequence
        return figures


def ledger(config: EncoderShape, sparsity: SparsityConfig | None = None, sequence_length: int = 128) -> Ledger:
    """The ledger of a BERT encoder.

    Args:
        config: a BertConfig, or anything with its three sizes.
        sparsity: how the encoder is sparse; None, or a density of 1, is dense. The blocks counted are those that its
            topologies hold, layer by layer.
        sequence_length: tokens in a sequence.

    Raises:
        EvergraftError: a block that does not divide a layer, or an allocation that does not fit.

    Example:
        >>> ledger(bert_config("medium", 1), SparsityConfig(density=0.1, block=(1, 1))).flops_per_sequence
        2738061312
    """
    attention = config.num_hidden_layers * PASSES * 2 * (2 * sequence_length**2 * config.hidden_size)
    shapes = encoder_linears(config)
    dense = Ledger(
        tuple(LinearCost(out, into, out * into, 0) for out, into in shapes.values()), attention, sequence_length, None
    )
    if sparsity is None or sparsity.is_dense:
        return dense
    counts = allocate({name: shape for name, shape in shapes.items() if sparsity.selects(name)}, sparsity)
    linears = (
        _sparse(*shape, total(counts[name]), sparsity.of_layer(name)[1]) if name in counts else every
        for (name, shape), every in zip(shapes.items(), dense.linears, strict=True)
    )
    return Ledger(tuple(linears), attention, sequence_length, dense)


def _sparse(out: int, into: int, active: int, block: tuple[int, int]) -> LinearCost:
    height, width = block
    rows, columns = block_grid(out, into, block)
    return LinearCost(out, into, active * height * width, 2 * active + rows + columns + 2)
