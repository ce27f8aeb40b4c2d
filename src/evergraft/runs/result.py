"""What a finished run came to, as a typed record: result.json."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from evergraft.runs.record import StoredRecord, read_record

Flops = Annotated[int | float, Field(gt=0)]  # written as an integer, kept as it was read


class TrainingBytes(StoredRecord):
    """Bytes of the encoder's linear layers while they are trained in fp32 with Adam (docs/method.md, section 4)."""

    weights: NonNegativeInt = Field(description="weights and biases")
    gradients: NonNegativeInt = Field(description="gradients of the weights and biases")
    optimizer: NonNegativeInt = Field(description="Adam's two moments of the weights and biases")
    indices: NonNegativeInt = Field(description="the indices that say which blocks exist; 0 in a dense encoder")

    @property
    def total(self) -> int:
        """The sum of all four, in bytes."""
        return self.weights + self.gradients + self.optimizer + self.indices


class RunResult(StoredRecord):
    """What a finished run came to: what `pretrain` and `resume` return and result.json holds.

    Losses are validation losses in nats: the MLM loss is a mean over masked tokens, the NSP loss a mean over pairs.
    Accuracies are shares in [0, 1].

    Example:
        >>> result = pretrain(Recipe(model="tiny", steps=1000))
        >>> result.validation_mlm_loss < result.unigram_entropy
        True
        >>> result.bytes.total < result.bytes_dense.total
        True
    """

    run: str = Field("", description="the run's folder, as it was named when the run ended")
    steps: PositiveInt = Field(description="optimiser steps")
    tokens: PositiveInt = Field(description="input tokens")
    seconds: NonNegativeFloat = Field(description="seconds of training, without validation and saving")
    flops_total: Flops = Field(description="training FLOPs of the encoder, of the whole run")
    flops_per_sequence: Flops | None = Field(None, description="training FLOPs of the encoder for one sequence")
    flops_per_sequence_dense: Flops | None = Field(None, description="the same FLOPs for the dense twin")
    bytes: TrainingBytes = Field(description="bytes of the encoder's linear layers in training")
    bytes_dense: TrainingBytes = Field(description="the same bytes for the dense twin")
    density: PositiveFloat = Field(description="exact share of the weights that exist in the sparse layers; 1 is dense")
    validation_mlm_loss: PositiveFloat
    validation_mlm_accuracy: NonNegativeFloat | None = None
    validation_nsp_loss: NonNegativeFloat
    validation_nsp_accuracy: NonNegativeFloat | None = None
    untrained_validation_mlm_loss: PositiveFloat | None = Field(None, description="before the first step")
    untrained_validation_mlm_accuracy: NonNegativeFloat | None = Field(None, description="before the first step")
    untrained_validation_nsp_loss: NonNegativeFloat | None = Field(None, description="before the first step")
    untrained_validation_nsp_accuracy: NonNegativeFloat | None = Field(None, description="before the first step")
    unigram_entropy: NonNegativeFloat | None = Field(None, description="of the training tokens, nats")
    explored: NonNegativeFloat | None = Field(description="explored degrees of freedom; None for a dense model")
    removed_new_ratio: NonNegativeFloat | None = Field(
        description="share of the grown blocks that the next update pruned; None without two updates"
    )


def read_result(path: Path, advice: str) -> RunResult:
    """Read a result.json.

    Args:
        path: the file.
        advice: what to do if it is torn; the end of the error's sentence.

    Raises:
        EvergraftError: it is torn, or a figure is missing or is not what it can be.
    """
    return read_record(RunResult, path, advice)
