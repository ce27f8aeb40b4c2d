"""What the settings of a recipe do to a run."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file

from evergraft.training.pretrain import pretrain
from tests.training.comparison import differences, metrics


def test_a_seed_repeats_and_another_differs(finished, small_recipe, tmp_path):
    pretrain(small_recipe(), tmp_path / "same")
    pretrain(small_recipe(seed=1), tmp_path / "other")
    assert differences(finished, tmp_path / "same") == []
    assert len(differences(finished, tmp_path / "other")) > 50


def test_static_and_dense_baselines(small_recipe, tmp_path):
    static = pretrain(small_recipe(updates=0, steps=6), tmp_path / "static")
    dense = pretrain(small_recipe(density=1, steps=6), tmp_path / "dense")
    assert static.explored == static.density == 0.25
    assert static.removed_new_ratio is None
    assert not (tmp_path / "static" / "topology.jsonl").exists()
    assert dense.density == 1
    assert dense.explored is None
    assert dense.bytes == dense.bytes_dense


def test_accumulation_is_the_same_step(small_recipe, tmp_path):
    whole = pretrain(small_recipe(dropout=0, steps=4, updates=1), tmp_path / "whole")
    parts = pretrain(small_recipe(dropout=0, steps=4, updates=1, accumulate=4), tmp_path / "parts")
    assert parts.validation_mlm_loss == pytest.approx(whole.validation_mlm_loss, rel=1e-5)
    norms = [
        next(line["gradient_norm"] for line in metrics(tmp_path / name) if "loss" in line)
        for name in ("whole", "parts")
    ]
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)


def test_bf16(small_recipe, tmp_path):
    result = pretrain(small_recipe(precision="bf16", steps=6, updates=2), tmp_path / "run")
    assert math.isfinite(result.validation_mlm_loss)
    assert load_file(tmp_path / "run/model/model.safetensors")["bert.pooler.dense.weight"].dtype == torch.float32


def test_group_lasso_shrinks_weights(finished, small_recipe, tmp_path):
    pretrain(small_recipe(group_lasso=30.0), tmp_path / "run")
    name = "bert.encoder.layer.0.output.dense.values"
    small, usual = (
        load_file(run / "model/model.safetensors")[name].abs().mean() for run in (tmp_path / "run", finished)
    )
    assert small < 0.8 * usual
