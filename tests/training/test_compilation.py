"""Compiled runs follow eager ones: one graph a step, the same losses and topologies, resumed bit for bit."""

from __future__ import annotations

import signal

import pytest
import torch
from torch._dynamo.utils import counters
from torch._inductor import config

from evergraft import EvergraftError
from evergraft.training import arguments, plan
from evergraft.training.pretrain import Interrupted, pretrain, resume
from tests.training.comparison import differences, metrics
from tests.training.stops import At


@pytest.fixture
def _traced(monkeypatch):
    """Stop short of the compiler's own code, which takes long and is another's to test."""
    torch.compiler.reset()
    counters.clear()
    monkeypatch.setattr(arguments, "COMPILER", "aot_eager")
    monkeypatch.setattr(plan, "check_compiler", lambda device: None)


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
        pretrain(recipe, tmp_path / "cut", callbacks=[At(7, lambda model: signal.raise_signal(signal.SIGTERM))])
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


def test_a_machine_that_cannot_compile_is_told(small_recipe, tmp_path):
    torch.compiler.reset()
    with (
        config.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}),
        pytest.raises(EvergraftError, match=r"^`compile`: torch cannot compile for cpu .* C\+\+ compiler") as told,
    ):
        pretrain(small_recipe(compile=True), tmp_path / "run")
    assert "\n" not in str(told.value)
    assert not (tmp_path / "run").exists()
