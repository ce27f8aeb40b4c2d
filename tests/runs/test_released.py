"""What version 0.1.0 has written stays usable: its corpus, its runs, its checkpoint, its fine-tuned model."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertForPreTraining

from evergraft.bert.examples import VALIDATION_SEED, PretrainingExamples
from evergraft.corpus import Corpus
from evergraft.files.folders import verify_manifest
from evergraft.finetuning import finetune
from evergraft.runs.folder import Run
from evergraft.study.report import report
from evergraft.training import evaluate as evaluation
from evergraft.training.export import export
from evergraft.training.inputs import reopen_corpus
from evergraft.training.pretrain import resume

RELEASED = Path(__file__).parents[1] / "released" / "0.1.0"


@pytest.fixture(autouse=True)
def _released(tmp_path, monkeypatch):
    """A copy of the files, in the current folder: the recipes name the corpus by a relative path."""
    shutil.copytree(RELEASED, tmp_path, dirs_exist_ok=True)
    for run in ("finished", "stopped"):
        facts = (tmp_path / run / "environment.json").read_text()
        (tmp_path / run / "environment.json").write_text(facts.replace("/tmp/fixture/corpus", "/nowhere/corpus"))
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_corpus_opens():
    verify_manifest(Path("corpus"))
    corpus = Corpus.open(Path("corpus"))
    assert corpus.vocabulary_size == Run.open(Path("finished")).recipe.vocabulary_size


def test_a_finished_run_evaluates_to_its_own_loss(monkeypatch):
    """On the sixteen inputs of its own validation; `evaluate` itself takes all of the text."""

    def own_validation(run, sources):
        corpus, recipe = reopen_corpus(run), run.recipe
        examples = PretrainingExamples(corpus, corpus.validation, recipe.sequence_length, VALIDATION_SEED)
        return examples.of_length(recipe.validation_sequences)

    monkeypatch.setattr(evaluation, "_examples", own_validation)
    result, own = evaluation.evaluate(Path("finished")), Run.open(Path("finished")).finished_result
    assert result.sequences == 16
    assert result.mlm_loss == pytest.approx(own.validation_mlm_loss, rel=1e-3)
    assert result.nsp_loss == pytest.approx(own.validation_nsp_loss, rel=1e-3)


def test_a_finished_run_is_exported_for_plain_transformers():
    export(Path("finished"), Path("bert"))
    model = BertForPreTraining.from_pretrained("bert")
    zeros = (model.bert.encoder.layer[0].attention.self.query.weight == 0).float().mean()
    assert zeros == pytest.approx(0.9, abs=0.01)


def test_fields_that_were_not_there_yet_mean_what_was_done():
    recipe = Run.open(Path("finished")).recipe
    assert (recipe.initialisation, recipe.encoder_rate) == ("normal", 1.0)


def test_a_finished_run_is_reported():
    text, _ = report([Path("finished")], "markdown")
    assert "3.89" in text  # its validation MLM loss


def test_a_finished_run_is_fine_tuned():
    finetune(Path("finished"), "labels.tsv", epochs=1, batch_size=8, seed=1)
    assert os.listdir("finished/finetune/labels-s1/model")


def test_a_fine_tuned_model_loads():
    model = AutoModelForSequenceClassification.from_pretrained("finished/finetune/labels-s0/model")
    assert model(torch.arange(32)[None]).logits.shape == (1, 2)


def test_a_stopped_run_resumes_to_what_the_finished_one_came_to():
    result, whole = resume(Path("stopped")), Run.open(Path("finished")).finished_result
    assert result.steps == whole.steps
    assert result.validation_mlm_loss == pytest.approx(whole.validation_mlm_loss, rel=1e-4)  # across kinds of CPUs
    assert result.to_dict().keys() == whole.to_dict().keys()
