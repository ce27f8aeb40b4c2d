"""`evergraft bench step`: that the steps compare like with like, and the figures it gives."""

from __future__ import annotations

import json

import pytest
import torch

from evergraft import EvergraftError
from evergraft.bench import step
from evergraft.bench.step import StepBench, with_full_head
from evergraft.bert.config import bert_config
from evergraft.bert.model import create_model


@pytest.fixture
def bench(tmp_path):
    config = tmp_path / "config.json"
    sizes = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    config.write_text(json.dumps({"model_type": "bert", **sizes, "hidden_dropout_prob": 0.0}))
    tiny = {"model": str(config), "batch_size": 4, "sequence_length": 16, "vocabulary_size": 128, "rounds": 1}
    return lambda **settings: StepBench(**{**tiny, "blocks": ((4, 4),), "backend": "dense", **settings})


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_figures(bench, precision, monkeypatch):
    monkeypatch.setattr(step, "has_onednn", lambda dtype=torch.float32: True)
    result = bench(precision=precision).run(peak_size=32)
    assert set(result["rivals"]) == {
        *(f"{name} {each}" for name in ("lean dense", "stock transformers") for each in ("fp32", "bf16")),
        "lean dense (oneDNN) fp32",
    }
    rivals = {name: facts["seconds"] for name, facts in result["rivals"].items()}
    assert result["ratio"] == pytest.approx(rivals[f"lean dense {precision}"] / result["seconds"])
    best = min(seconds for name, seconds in rivals.items() if name.startswith("stock"))
    assert result["ratio_stock"] == pytest.approx(best / result["seconds"])
    assert result["ratio_best_dense"] <= result["ratio"]
    assert result["backend"] == "dense"
    assert result["density"] == pytest.approx(0.1, abs=0.02)
    assert result["bytes_ratio"] < 0.2
    assert result["topology_update"]["seconds"] > 0
    assert result["tokens_per_second"] == pytest.approx(64 / result["seconds"])


def test_rivals_in_bf16_where_the_processor_multiplies_it_or_it_is_asked(bench, monkeypatch):
    monkeypatch.setattr(step, "has_onednn", lambda dtype=torch.float32: dtype == torch.float32)
    assert {precision for _, precision in bench().steps()} == {"fp32"}
    assert ("lean dense", "bf16") in bench(precision="bf16").steps()


def test_several_and_dense_alone(bench):
    result = bench(densities=(0.1, 1.0), all_rivals=False).run(peak_size=32)
    assert [round(figures["density"], 1) for figures in result["results"]] == [0.1, 1.0]
    assert all(list(figures["rivals"]) == ["lean dense fp32"] for figures in result["results"])
    assert result["results"][0]["ratio_stock"] is None


def test_rivals_get_the_same_task(bench):
    torch.manual_seed(0)
    rivals, losses = bench()._rivals(), {}
    for key, rival in rivals.items():
        if "stock" not in key[0]:  # whose weights are others
            rival.model.eval()
            losses[key] = rival.model(**rival.inputs).loss
            gradients = torch.autograd.grad(losses[key], list(rival.model.parameters()))
            assert all(gradient.isfinite().all() for gradient in gradients)
    torch.testing.assert_close(losses["lean dense (oneDNN)", "fp32"], losses["lean dense", "fp32"])


def test_the_stock_batch_is_the_same(bench):
    setting = bench()
    inputs = setting._inputs()
    model = create_model(bert_config(setting.model, 128, 16), 0).eval().double()
    with torch.no_grad():
        lean, full = model(**inputs).loss, model(**with_full_head(inputs)).loss
    torch.testing.assert_close(lean, full, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"model": "giant"}, "model 'giant' is neither one of tiny"),
        ({"blocks": ((5, 4),)}, "block 5x4 does not divide"),
        ({"densities": (0.0,)}, "`density`: Input should be greater than 0"),
        ({"precision": "fp8"}, "`precision` must be fp32 or bf16"),
    ],
)
def test_bad_settings(bench, settings, says):
    with pytest.raises(EvergraftError, match=says):
        bench(**settings).run(peak_size=32)
