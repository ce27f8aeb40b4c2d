"""What a finished run came to, as a typed record: result.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from evergraft.errors import EvergraftError
from evergraft.files.folders import read_object


class TrainingBytes(BaseModel):
    """Bytes of the encoder's linear layers while they are trained in fp32 with Adam."""

    model_config = ConfigDict(strict=True, frozen=True)

    weights: NonNegativeInt
    gradients: NonNegativeInt
    optimizer: NonNegativeInt
    indices: NonNegativeInt

    @property
    def total(self) -> int:
        """The sum of all four, in bytes."""
        return self.weights + self.gradients + self.optimizer + self.indices


class RunResult(BaseModel):
    """What a finished run came to: what `pretrain` returns and result.json holds.

    Losses are validation losses in nats: of MLM a mean over masked tokens, of NSP a mean over pairs.

    Example:
        >>> result = evergraft.pretrain(recipe)
        >>> result.validation_mlm_loss < result.unigram_entropy
        True
    """

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False, extra="allow")

    run: str = Field("", description="the run's folder, as it was named when the run ended")
    steps: PositiveInt = Field(description="optimiser steps")
    tokens: PositiveInt = Field(description="input tokens")
    seconds: NonNegativeFloat = Field(description="seconds of training, without validation and saving")
    flops_total: PositiveFloat = Field(description="training FLOPs of the encoder, of the whole run")
    flops_per_sequence: PositiveFloat | None = Field(None, description="training FLOPs of the encoder for one sequence")
    flops_per_sequence_dense: PositiveFloat | None = Field(None, description="the same FLOPs for the dense twin")
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

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON has it: the keys of result.json, in their order."""
        return self.model_dump(mode="json")


def read_result(path: Path, advice: str) -> RunResult:
    """Read a result.json.

    Args:
        path: the file.
        advice: what to do if it is torn; the end of the error's sentence.

    Raises:
        EvergraftError: it is torn, or a figure is missing or is not what it can be.
    """
    needed = {name for name, field in RunResult.model_fields.items() if field.is_required()}
    found = read_object(path, needed, advice)
    try:
        return RunResult.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise EvergraftError(f"{path} is torn: {name}: {first['msg']}; got {first['input']!r}; {advice}") from None
