"""What the settings of a recipe do to a run."""

from __future__ import annotations

import math
import re

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from evergraft.training.pretrain import pretrain, resume
from tests.training.comparison import differences, metrics
from tests.training.stops import cut


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


class Groups(TrainerCallback):
    """Notes the peak rate of every parameter when training begins."""

    def on_train_begin(self, args, state, control, *, model, optimizer, **kwargs):
        names = {parameter: name for name, parameter in model.named_parameters()}
        self.rates = {names[p]: group["initial_lr"] for group in optimizer.param_groups for p in group["params"]}
        self.betas = {group["betas"] for group in optimizer.param_groups}


@pytest.mark.parametrize(("density", "matrix"), [(0.25, "values"), (1, "weight")])
def test_the_encoders_matrices_have_a_rate_of_their_own(small_recipe, tmp_path, density, matrix):
    groups = Groups()
    settings = {"density": density, "learning_rate": 1e-3, "encoder_rate": 4, "beta1": 0.8, "beta2": 0.98}
    result = pretrain(small_recipe(steps=4, updates=1, **settings), tmp_path / "run", callbacks=[groups])
    assert math.isfinite(result.validation_mlm_loss)
    faster = {name for name, rate in groups.rates.items() if rate == pytest.approx(4e-3)}
    assert {name for name, rate in groups.rates.items() if rate == pytest.approx(1e-3)} | faster == set(groups.rates)
    assert faster == {
        name for name in groups.rates if re.fullmatch(rf"bert\.encoder\.layer\..*(?<!Norm)\.{matrix}", name)
    }
    assert len(faster) % 6 == 0 < len(faster)
    assert groups.betas == {(0.8, 0.98)}


def test_a_run_with_two_rates_resumes_bit_for_bit(small_recipe, tmp_path):
    recipe = small_recipe(encoder_rate=4, initialisation="fan_in", updates=4)
    pretrain(recipe, tmp_path / "whole")
    stopped = cut(recipe, tmp_path / "stopped")
    resume(stopped)
    assert differences(tmp_path / "whole", stopped) == []
