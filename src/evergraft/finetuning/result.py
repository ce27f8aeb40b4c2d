"""What a fine-tuning came to, as a typed record: result.json in a folder of `finetune/`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from evergraft.runs.record import StoredRecord, read_record

Metrics = dict[str, float | None]  # by name; None where a metric is undefined, as the correlation of a constant is


class EpochResult(StoredRecord):
    """The validation after one epoch."""

    epoch: int = Field(description="counted from 1")
    loss: float = Field(description="validation loss: cross entropy in nats, or the mean squared error of scores")
    metrics: Metrics = Field(description="of the task, by name")


class FinetuneResult(StoredRecord):
    """What a fine-tuning came to: what `finetune` returns and result.json holds.

    Example:
        >>> result = finetune(Path("runs/tiny"), "rte", data=Path("glue"))
        >>> list(result.metrics)
        ['accuracy']
        >>> len(result.history) == result.epochs
        True
    """

    run: str = Field(description="the folder of the run, as it was named")
    task: str = Field(description="the task's name; of a table its file's name")
    data_identity: str = Field("", description="hash of all examples; empty in results from before it was recorded")
    output: str = Field(description="the folder that holds this result, as it was named")
    metrics: Metrics = Field(description="validation metrics after the last epoch")
    history: list[EpochResult] = Field(description="the validation after each epoch")
    seconds: float = Field(description="seconds of training and validation")
    steps: int = Field(description="optimiser steps")
    train_examples: int = Field(description="examples trained on")
    validation_examples: int = Field(description="examples validated on")
    epochs: int = Field(description="passes over the training examples")
    learning_rate: float = Field(description="peak")
    batch_size: int = Field(description="examples a step")
    seed: int = Field(description="of the classifier, the order of the examples and dropout")
    densified: bool = Field(description="whether a sparse encoder was made dense first")
    updates: int = Field(description="topology updates while fine-tuning")
    density: float = Field(description="share of the encoder's blocks that existed while it was fine-tuned")


def read_finetune_result(path: Path) -> FinetuneResult:
    """Read a fine-tuning's result.json.

    Raises:
        EvergraftError: it is torn, or holds something that cannot be.
    """
    return read_record(FinetuneResult, path, f"remove {path.parent} and fine-tune again")
