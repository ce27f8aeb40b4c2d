"""Fine-tuning a run: it learns, sparse stays sparse, and a model comes out that loads."""

from __future__ import annotations

import math
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from evergraft.bert.model import SparseBertForPreTraining
from evergraft.errors import EvergraftError
from evergraft.finetuning import finetune
from evergraft.finetuning.model import SparseBertForSequenceClassification, classifier
from evergraft.finetuning.result import read_finetune_result
from evergraft.finetuning.tasks import TASKS
from evergraft.finetuning.tune import _name
from evergraft.runs.folder import Run
from evergraft.sparse.conversion import sparse_layers
from evergraft.study.collection import collect
from evergraft.study.tables.transfer import transfer


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Sentences about a cat or a dog, labelled by which."""
    words = ("the cat", "a small dog")
    lines = [f"{words[n % 2]} watches the house number {n}\t{n % 2}" for n in range(120)]
    path = tmp_path_factory.mktemp("task") / "animals.tsv"
    path.write_text("sentence\tlabel\n" + "\n".join(lines))
    return path


@pytest.fixture
def run(finished, tmp_path):
    """A finished run of one's own."""
    return shutil.copytree(finished, tmp_path / "run")


SETTINGS = {"epochs": 8, "learning_rate": 5e-3, "batch_size": 16, "device": "cpu"}


def test_it_learns_and_the_topology_stays(run, table):
    result = finetune(run, str(table), **SETTINGS)
    assert result.metrics["accuracy"] == 1
    assert len(result.history) == 8
    assert result.history[-1].loss < result.history[0].loss
    assert (result.train_examples, result.validation_examples, result.steps) == (108, 12, 56)
    assert result.density == 0.25
    folder = run / "finetune" / "animals-s0"
    assert read_finetune_result(folder / "result.json") == result
    assert sorted(path.name for path in folder.iterdir()) == ["environment.json", "model", "result.json"]
    tuned = AutoModelForSequenceClassification.from_pretrained(folder / "model")
    assert isinstance(tuned, SparseBertForSequenceClassification)
    before = sparse_layers(SparseBertForPreTraining.from_pretrained(run / "model"))
    for name, layer in sparse_layers(tuned).items():
        assert torch.equal(layer.topology.positions, before[name].topology.positions)
        assert not torch.equal(layer.values, before[name].values)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    inputs = tokenizer(
        ["a small dog watches the house", "the cat watches the house"], padding=True, return_tensors="pt"
    )
    assert tuned.eval()(**inputs).logits.argmax(-1).tolist() == [1, 0]
    assert tuned.config.id2label == {0: "0", 1: "1"}
    rows = transfer(collect([run])).rows
    names = [f"animals.tsv, {metric}" for metric in ("accuracy", "macro_f1")]
    how = "8 epochs, batches of 16, rate 0.005"
    assert rows == tuple((name, "dynamic", "as it was", how, "1 (1)", "1.000", "-") for name in names)


def test_a_seed_repeats(run, table, tmp_path):
    settings = SETTINGS | {"epochs": 1}
    results = [finetune(run, str(table), **settings, output=tmp_path / name) for name in ("one", "two")]
    assert results[0].history == results[1].history
    assert results[0].history != finetune(run, str(table), **settings, seed=1).history


def test_densified(run, table):
    result = finetune(run, str(table), dense=True, **SETTINGS | {"epochs": 1})
    assert (result.density, result.densified) == (1, True)
    tuned = AutoModelForSequenceClassification.from_pretrained(run / "finetune" / "animals-dense-s0" / "model")
    with pytest.raises(EvergraftError, match="holds no SparseLinear"):
        sparse_layers(tuned)
    assert (tuned.bert.encoder.layer[0].output.dense.weight != 0).float().mean() > 0.9  # training filled the zeros


def test_densify_keeps_the_function(finished):
    run, task = Run.open(finished), TASKS["sst2"]
    torch.manual_seed(0)
    sparse = classifier(run, task).eval()
    torch.manual_seed(0)
    dense = classifier(run, task, dense=True).eval()
    tokens = torch.randint(5, 100, (3, 20))
    torch.testing.assert_close(dense(tokens).logits, sparse(tokens).logits, rtol=1e-5, atol=1e-6)


def test_the_topology_evolves_when_asked(run, table):
    result = finetune(run, str(table), updates=3, **SETTINGS | {"epochs": 2})
    lines = (run / "finetune" / "animals-updates3-s0" / "topology.jsonl").read_text().splitlines()
    assert len(lines) == 3 * (12 + 1)
    assert result.updates == 3


def test_scores_are_regressed(run, tmp_path):
    path = tmp_path / "scores.tsv"
    words = {"the cat": 0.5, "my old teacher": 4.0}
    lines = [f"{word} watches the house\tthe captain\t{score}" for word, score in words.items()]
    path.write_text("sentence1\tsentence2\tlabel\n" + "\n".join(lines * 60))
    result = finetune(run, str(path), **SETTINGS | {"epochs": 20})
    assert result.metrics["pearson"] > 0.9


def test_divergence_is_told_and_nothing_is_kept(run, table, monkeypatch):
    def poisoned(*arguments, **settings):
        model = classifier(*arguments, **settings)
        torch.nn.init.constant_(model.classifier.weight, math.nan)
        return model

    monkeypatch.setattr(sys.modules[finetune.__module__], "classifier", poisoned)
    with pytest.raises(EvergraftError, match="the validation loss is nan after epoch 1: fine-tuning has diverged"):
        finetune(run, str(table), **SETTINGS | {"epochs": 1})
    assert not list((run / "finetune").iterdir())


def test_bad_settings(run, table, tmp_path):
    for settings, sentence in (
        ({"epochs": 0}, "`epochs` must be 1 or more; got 0"),
        ({"batch_size": 0}, "`batch_size` must be 1 or more; got 0"),
        ({"learning_rate": 2.0}, "`learning_rate` must lie between 0 and 1; got 2.0"),
        ({"updates": -1}, "`updates` must be 0"),
        ({"updates": 3, "dense": True}, "`updates` 3: a dense encoder has no topology to update; leave `updates` out"),
        ({"seed": 2**32}, "`seed` must be 0 or more and below 2.32; got 4294967296"),
        ({"device": "tpu"}, "tpu"),
        ({"output": run}, "exists already; choose another `output`, or another `seed`"),
    ):
        with pytest.raises(EvergraftError, match=sentence):
            finetune(run, str(table), **settings)
    with pytest.raises(EvergraftError, match="is not a run's folder"):
        finetune(tmp_path / "missing", str(table))
    shutil.rmtree(run / "model")
    with pytest.raises(EvergraftError, match="holds no finished model"):
        finetune(run, str(table))
    assert not (run / "finetune").exists()


@pytest.mark.parametrize(
    ("table", "folder"), [("q.tsv", "q-s0"), ("q.x.tsv", "q.x-s0"), ("q.x.tsv.xz", "q.x-s0"), ("rte", "rte-s0")]
)
def test_a_fine_tuning_is_named_after_its_table(table, folder):
    assert _name(replace(TASKS["rte"], name=table), False, 0, 0) == folder
