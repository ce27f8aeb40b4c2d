"""What tasks measure."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef

from evergraft.finetuning.tasks import METRICS, TASKS, measure


def test_metrics_against_their_definitions():
    labels, predicted = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0])
    assert METRICS["accuracy"](labels, predicted) == 0.6
    assert METRICS["f1"](labels, predicted) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert METRICS["matthews_correlation"](labels, predicted) == pytest.approx(matthews_corrcoef(labels, predicted))
    scores = np.array([[1.0], [2.0], [4.0]])
    assert measure(TASKS["stsb"], scores, np.array([1.0, 2.0, 3.0]))["spearman"] == pytest.approx(1)
    assert measure(TASKS["stsb"], np.ones((3, 1)), np.array([1.0, 2.0, 3.0])) == {"pearson": None, "spearman": None}
    assert measure(TASKS["cola"], np.eye(2)[[0, 0]], np.array([0, 1])) == {"matthews_correlation": 0}
    assert not math.isnan(measure(TASKS["mrpc"], np.eye(2)[[0, 0]], np.array([0, 1]))["f1"])
