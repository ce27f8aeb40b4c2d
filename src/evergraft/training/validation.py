"""What a validation measures: mean losses and accuracies of MLM and NSP.

This module is not part of the public interface.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import EvalPrediction

from evergraft.files.jsonlines import JsonLines

MEASURES = ("mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy")
PREFIX = "validation"  # what the measures' names begin with in metrics.jsonl and result.json


def mean_losses(outputs: EvalPrediction) -> dict[str, float]:
    """The measures of many `PretrainingOutput`s, by name.

    Losses are in nats and accuracies are shares, of MLM over all masked tokens, of NSP over all pairs.
    """
    mlm_nats, mlm_correct, masked, nsp_nats, nsp_correct = (
        np.asarray(part, np.float64) for part in outputs.predictions
    )
    return {
        "mlm_loss": float(mlm_nats.sum() / masked.sum()),
        "mlm_accuracy": float(mlm_correct.sum() / masked.sum()),
        "nsp_loss": float(nsp_nats.mean()),
        "nsp_accuracy": float(nsp_correct.mean()),
    }


def validation_of(line: dict[str, Any]) -> dict[str, Any]:
    """The measures in a line of metrics, by prefixed name (`validation_mlm_loss`); empty if the line holds none."""
    names = [f"{PREFIX}_{measure}" for measure in MEASURES]
    return {name: line[name] for name in names if name in line}


def validations(metrics: JsonLines) -> list[dict[str, Any]]:
    """The validations that a run has logged, as `validation_of` gives them; the first was made before any step."""
    return [found for line in metrics if (found := validation_of(line))]
