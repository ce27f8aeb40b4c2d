"""Export of a finished run to a plain dense checkpoint, and its model card."""

from __future__ import annotations

import shutil

import pytest
import torch
from transformers import BertForPreTraining

from evergraft import EvergraftError
from evergraft.bert.model import SparseBertForPreTraining
from evergraft.runs.folder import Run
from evergraft.training.card import model_card
from evergraft.training.export import export


def test_the_dense_model_has_the_same_logits(finished, tmp_path):
    result = export(finished, tmp_path / "bert")
    dense = BertForPreTraining.from_pretrained(tmp_path / "bert").eval()
    sparse = SparseBertForPreTraining.from_pretrained(finished / "model").eval()
    tokens = torch.arange(32)[None]
    for got, want in zip(dense(tokens).to_tuple(), sparse(tokens).to_tuple(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    assert result.to_dict() == {"directory": str(tmp_path / "bert"), "parameters": dense.num_parameters()}
    run = Run.open(finished)
    assert (tmp_path / "bert" / "README.md").read_text() == model_card(run.recipe, run.finished_result)


def test_the_card_tells_how_sparse_the_model_was(finished):
    run = Run.open(finished)
    card = model_card(run.recipe, run.finished_result)
    assert "tags: [bert, sparse-training, evergraft]" in card
    assert "had 25.00% of their 4x4 blocks" in card
    assert run.recipe.to_yaml() in card
    dense = model_card(run.recipe.model_copy(update={"density": 1.0}), run.finished_result)
    assert "tags: [bert, evergraft]" in dense
    assert "pre-trained dense" in dense


def test_only_a_finished_run_is_exported_and_only_to_a_new_folder(finished, tmp_path):
    with pytest.raises(EvergraftError, match="exists already; choose a new folder to export to"):
        export(finished, tmp_path)
    run = shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("result.json"))
    with pytest.raises(EvergraftError, match="has not finished; finish it with: evergraft pretrain --resume"):
        export(run, tmp_path / "bert")
    assert not (tmp_path / "bert").exists()
