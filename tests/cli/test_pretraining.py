"""`evergraft pretrain`, `evaluate` and `export`: what they print, and what an exported model is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertForPreTraining, pipeline

from evergraft.bert.model import SparseBertForPreTraining


@pytest.fixture
def recipe_file(small_recipe, tmp_path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(small_recipe(steps=6, updates=2).to_yaml())
    return path


def test_pretrain_json(run, recipe_file, tmp_path):
    code, out, _ = run("pretrain", "--recipe", recipe_file, "--output", tmp_path / "run", "--steps", 5, "--json")
    assert code == 0
    assert out.count("\n") == 1
    result = json.loads(out)
    assert result["steps"] == 5
    assert result["run"] == str(tmp_path / "run")
    code, out, _ = run("pretrain", "--resume", tmp_path / "run", "--json")
    assert json.loads(out) == result


def test_pretrain_summary(run, recipe_file, tmp_path):
    code, out, err = run("pretrain", "--recipe", recipe_file, "--output", tmp_path / "run")
    assert code == 0
    assert "unigram entropy" in out
    assert "its dense twin" in out
    assert str(tmp_path / "run") in out.replace("\n", "")
    assert "tokens/s" in err


def test_pretrain_report(run, recipe_file, tmp_path):
    code, out, _ = run("pretrain", "--recipe", recipe_file, "--output", tmp_path / "run", "--report")
    assert code == 0
    assert "Masked words" in out
    assert f"is {tmp_path / 'run' / 'report.html'}" in out.replace("\n", "")
    assert "<html" in (tmp_path / "run" / "report.html").read_text()


def test_fill(run, finished):
    code, out, _ = run("fill", finished, "the cat [MASK] the house", "--json")
    assert code == 0
    assert len(json.loads(out)["texts"][0]["guesses"][0]) == 3
    assert "the cat [MASK] the house" in run("fill", finished, "the cat [MASK] the house")[1]
    assert len(json.loads(run("fill", finished, "--count", 2, "--json")[1])["texts"]) == 2
    assert "has no [MASK]" in run("fill", finished, "the cat")[2]


def test_evaluate(run, finished, text_file):
    expected = json.loads((finished / "result.json").read_text())
    code, out, _ = run("evaluate", finished, "--json")
    own = json.loads(out)
    assert code == 0
    assert own.keys() >= {"mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy"}
    assert own["mlm_loss"] == pytest.approx(expected["validation_mlm_loss"], rel=0.05)  # all windows, not sixteen
    code, out, _ = run("evaluate", finished, "--corpus", text_file, "--json")
    assert json.loads(out)["sequences"] > own["sequences"]
    assert "mlm_loss: " in run("evaluate", finished)[1]


def test_export_loads_in_plain_transformers(run, finished, tmp_path):
    code, out, _ = run("export", finished, tmp_path / "bert", "--json")
    assert code == 0
    assert json.loads(out)["directory"] == str(tmp_path / "bert")
    dense = BertForPreTraining.from_pretrained(tmp_path / "bert").eval()
    sparse = SparseBertForPreTraining.from_pretrained(finished / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "bert")
    inputs = tokenizer("The cat [MASK] the house.", "My old teacher.", return_tensors="pt")
    for got, want in zip(dense(**inputs).to_tuple(), sparse(**inputs).to_tuple(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    config = json.loads((tmp_path / "bert" / "config.json").read_text())
    assert config["model_type"] == "bert"
    assert config["architectures"] == ["BertForPreTraining"]
    assert "density" not in config
    assert "values" not in " ".join(load_file(tmp_path / "bert" / "model.safetensors"))
    card = (tmp_path / "bert" / "README.md").read_text()
    assert "pre-trained always-sparse" in card
    assert "25.00% of their 4x4 blocks" in card
    assert json.loads((tmp_path / "bert" / "tokenizer_config.json").read_text())["tokenizer_class"] == (
        "PreTrainedTokenizerFast"  # which transformers 4 knows too
    )
    longer = tokenizer("The cat watches the house. " * 50, truncation=True, return_tensors="pt")
    assert dense(**longer).prediction_logits.shape[1] == config["max_position_embeddings"] == 32
    fill = pipeline("fill-mask", model=str(tmp_path / "bert"))
    assert len(fill("The cat [MASK] the house.")) == 5
