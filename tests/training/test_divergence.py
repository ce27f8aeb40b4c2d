"""Training that diverges is told, and training that does not is not."""

from __future__ import annotations

import math

import pytest
import torch

from evergraft import EvergraftError
from evergraft.bert.model import SparseBertForPreTraining
from evergraft.training.pretrain import pretrain
from tests.training.comparison import metrics
from tests.training.stops import At


def test_divergence_is_told_and_nothing_bad_is_saved(small_recipe, tmp_path):
    def poison(model):
        model.bert.embeddings.word_embeddings.weight.data.fill_(float("nan"))

    with pytest.raises(
        EvergraftError, match="the loss is nan at step 12: training has diverged; lower `learning_rate`"
    ):
        pretrain(small_recipe(), tmp_path / "run", callbacks=[At(11, poison)])
    with pytest.raises(EvergraftError, match="a weight is not finite at step 10"):
        pretrain(small_recipe(log_every=100), tmp_path / "unlogged", callbacks=[At(7, poison)])
    assert not list((tmp_path / "unlogged").glob("checkpoint-*"))


def test_inputs_without_a_masked_token_are_no_divergence(small_recipe, tmp_path, monkeypatch):
    """Which short ones may be, one at a time."""
    forward = SparseBertForPreTraining.forward

    def unmasked(self, *, labels, **inputs):
        return forward(self, labels=torch.full_like(labels, -100) if self.training else labels, **inputs)

    monkeypatch.setattr(SparseBertForPreTraining, "forward", unmasked)
    result = pretrain(small_recipe(steps=2, updates=1, log_every=1), tmp_path / "run")
    assert math.isfinite(result.validation_mlm_loss)
    assert [line["mlm_loss"] for line in metrics(tmp_path / "run") if "mlm_loss" in line] == [0, 0]
