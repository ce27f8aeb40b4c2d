"""A sentence classifier on a run's encoder, sparse as it was pre-trained."""

from __future__ import annotations

from copy import copy

from transformers import AutoModelForSequenceClassification, BertForSequenceClassification

from evergraft.bert.config import SparseBertConfig
from evergraft.bert.model import SparsePreTrainedModel, sparsify_as_configured
from evergraft.finetuning.tasks import Task
from evergraft.runs.folder import Run
from evergraft.sparse.conversion import densify


class SparseBertForSequenceClassification(SparsePreTrainedModel, BertForSequenceClassification):  # type: ignore[no-untyped-call]
    """`BertForSequenceClassification` whose encoder is sparse, if its configuration says so."""

    def __init__(self, config: SparseBertConfig) -> None:
        super().__init__(copy(config))  # so that the caller's configuration stays as it is
        sparsify_as_configured(self, config)


def classifier(run: Run, task: Task, *, dense: bool = False) -> SparseBertForSequenceClassification:
    """A run's encoder and pooler under a fresh classifier.

    Args:
        run: a finished run.
        task: says how many classes or scores there are, and what they are called.
        dense: make the encoder dense, with zeros where no weight was, which training may then fill.

    Raises:
        EvergraftError: the run has not finished.
    """
    names = dict(enumerate(task.labels or ["score"]))
    model: SparseBertForSequenceClassification = SparseBertForSequenceClassification.from_pretrained(
        run.model_folder,
        num_labels=task.outputs,
        id2label=names,
        label2id={name: index for index, name in names.items()},
        problem_type="single_label_classification" if task.labels else "regression",
    )
    if dense and model.config.sparsity is not None:
        densify(model)
    return model


AutoModelForSequenceClassification.register(SparseBertConfig, SparseBertForSequenceClassification)
