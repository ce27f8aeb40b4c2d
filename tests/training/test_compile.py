"""Compiled runs follow eager ones: one graph a step, the same losses and topologies, resumed bit for bit."""

from __future__ import annotations

import json
import signal

import pytest
import torch
from torch._dynamo.utils import counters
from torch._inductor import config
from transformers import TrainerCallback

from evergraft.training import pretrain as training
from evergraft.training import trainer
from evergraft.training.pretrain import Interrupted, pretrain, resume
from tests.kernels.comparison import differences, metrics


@pytest.fixture
def _traced(monkeypatch):
    """Stop short of the compiler's own code, which takes long and is another's to test."""
    torch.compiler.reset()
    counters.clear()
    monkeypatch.setattr(trainer, "COMPILER", "aot_eager")
    monkeypatch.setattr(training, "check_compiler", lambda device: None)


class StopAfter(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            signal.raise_signal(signal.SIGTERM)


def check_follows(small_recipe, tmp_path, rel, **settings):
    """A compiled run without dropout, whose random numbers a compiler may draw otherwise."""
    for name in ("eager", "compiled"):
        recipe = small_recipe(dropout=0, evaluate_every=9, compile=name == "compiled", **settings)
        pretrain(recipe, tmp_path / name)
    eager, compiled = metrics(tmp_path / "eager"), metrics(tmp_path / "compiled")
    assert [line.keys() for line in compiled] == [line.keys() for line in eager]
    for mine, reference in zip(compiled, eager, strict=True):
        for key in ("loss", "gradient_norm", "validation_mlm_loss", "explored"):
            assert mine.get(key, 0) == pytest.approx(reference.get(key, 0), rel=rel), (key, mine["step"])


def check_resumes(small_recipe, tmp_path, **settings):
    recipe = small_recipe(steps=12, updates=3, save_every=5, compile=True, **settings)
    pretrain(recipe, tmp_path / "whole")
    with pytest.raises(Interrupted):
        pretrain(recipe, tmp_path / "cut", callbacks=[StopAfter(7)])
    resume(tmp_path / "cut")
    assert differences(tmp_path / "whole", tmp_path / "cut") == []


@pytest.mark.usefixtures("_traced")
@pytest.mark.parametrize("settings", [{}, {"precision": "bf16", "accumulate": 2, "block": "16x1"}], ids=str)
def test_a_compiled_run_follows_the_eager_one(settings, small_recipe, tmp_path):
    check_follows(small_recipe, tmp_path, 1e-2 if "precision" in settings else 1e-4, **settings)
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 1  # for all steps, whatever the topology; validation is not compiled


@pytest.mark.usefixtures("_traced")
def test_a_compiled_run_resumes_bit_for_bit(small_recipe, tmp_path):
    check_resumes(small_recipe, tmp_path)


@pytest.mark.slow
def test_the_real_compiler_follows(small_recipe, tmp_path):
    check_follows(small_recipe, tmp_path, 1e-3)


@pytest.mark.slow
def test_the_real_compiler_resumes_bit_for_bit(small_recipe, tmp_path):
    check_resumes(small_recipe, tmp_path, precision="bf16")


def test_a_machine_that_cannot_compile_is_told(run, small_recipe, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(small_recipe().to_yaml())
    torch.compiler.reset()
    with config.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}):
        code, out, err = run("pretrain", "--recipe", recipe, "--output", tmp_path / "run", "--compile")
    assert code == 2
    assert out == ""
    assert err.startswith("error: --compile: torch cannot compile for cpu on this machine")
    assert "C++ compiler" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("flag", "expected"), [("--compile", True), ("--no-compile", False)])
def test_the_flag_is_a_switch(flag, expected, run, small_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "pretrain", lambda recipe, output: {"compile": recipe.compile})
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(small_recipe(compile=not expected).to_yaml())
    assert json.loads(run("pretrain", "--recipe", recipe, flag, "--json")[1]) == {"compile": expected}
