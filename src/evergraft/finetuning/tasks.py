"""Labelled tasks: where in a table sentences and labels stand, what labels there are, what is measured."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats  # type: ignore[import-untyped]
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef  # type: ignore[import-untyped]


@dataclass(frozen=True)
class Task:
    """What a table of a task looks like.

    Attributes:
        name: the task's name.
        first: the column of the sentence, or of the first of two.
        second: the column of the other sentence; None if an example has one alone.
        label: the column of the label.
        labels: the classes, in the order of their ids; None for a score.
        metrics: what is measured, by the names of METRICS.
        header: the columns of tables that do not name them in their first line.
    """

    name: str
    first: str
    second: str | None
    label: str
    labels: tuple[str, ...] | None
    metrics: tuple[str, ...]
    header: tuple[str, ...] | None = None

    @property
    def outputs(self) -> int:
        """How many numbers a classifier gives: one for each class, or a score alone."""
        return len(self.labels) if self.labels else 1


# GLUE (Wang et al., 2018), as the benchmark distributes the tables, with its metrics.
TASKS = {
    task.name: task
    for task in (
        Task("sst2", "sentence", None, "label", ("0", "1"), ("accuracy",)),
        Task("mrpc", "#1 String", "#2 String", "Quality", ("0", "1"), ("accuracy", "f1")),
        Task("rte", "sentence1", "sentence2", "label", ("entailment", "not_entailment"), ("accuracy",)),
        Task(
            "cola", "sentence", None, "label", ("0", "1"), ("matthews_correlation",),
            header=("source", "label", "mark", "sentence"),
        ),
        Task("stsb", "sentence1", "sentence2", "score", None, ("pearson", "spearman")),
    )
}  # fmt: skip

Metric = Callable[[np.ndarray, np.ndarray], float]
METRICS: dict[str, Metric] = {
    "accuracy": lambda labels, predicted: float(accuracy_score(labels, predicted)),
    "f1": lambda labels, predicted: float(f1_score(labels, predicted, zero_division=0)),
    "macro_f1": lambda labels, predicted: float(f1_score(labels, predicted, average="macro", zero_division=0)),
    "matthews_correlation": lambda labels, predicted: float(matthews_corrcoef(labels, predicted)),
    "pearson": lambda labels, predicted: float(stats.pearsonr(labels, predicted).statistic),
    "spearman": lambda labels, predicted: float(stats.spearmanr(labels, predicted).statistic),
}


def measure(task: Task, outputs: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    """The metrics of a task.

    Args:
        task: says which metrics, and whether outputs are of classes.
        outputs: [examples, classes] logits, or [examples, 1] predicted scores, of any float dtype.
        labels: [examples] class ids, or scores.

    Returns:
        The value of each metric by its name; None where it is not defined, as the correlation of a constant is not.

    Example:
        >>> measure(TASKS["sst2"], np.array([[0.2, 0.8], [0.9, 0.1]]), np.array([1, 1]))
        {'accuracy': 0.5}
    """
    predicted = outputs.argmax(-1) if task.labels else outputs.reshape(-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of constants, for which None stands
        values = {name: METRICS[name](labels, predicted) for name in task.metrics}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
