"""What a fine-tuning is measured by, and how it was done."""

from __future__ import annotations

from typing import NamedTuple

from evergraft.finetuning.result import FinetuneResult


class Score(NamedTuple):
    """A metric of a fine-tuning and its settings. Fine-tunings alike in all of this are repeats of each other.

    Attributes:
        task: the task's name.
        metric: what was measured.
        densified: whether the encoder was made dense first.
        updates: topology updates while fine-tuning.
        epochs, batch_size, learning_rate: passes over the training examples, examples in a step, AdamW's peak rate.
        data_identity: a hash of the examples; empty in results from before it was recorded.
    """

    task: str
    metric: str
    densified: bool
    updates: int
    epochs: int
    batch_size: int
    learning_rate: float
    data_identity: str = ""

    @classmethod
    def of(cls, result: FinetuneResult, metric: str) -> Score:
        """One metric of a result."""
        return cls(metric=metric, **{name: getattr(result, name) for name in cls._fields if name != "metric"})

    @property
    def of_dense(self) -> Score:
        """What the score of a dense model must share to be compared with this one.

        A dense model has no topology to update or to fill up, and a best learning rate of its own.
        """
        return self._replace(densified=False, updates=0, learning_rate=0.0)


SETTINGS = tuple(name for name in Score._fields if name not in ("metric", "data_identity"))
