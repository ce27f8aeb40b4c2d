"""The length of a run by steps or by the clock, and the learning rate that follows it."""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace

from evergraft.training.budget import Budget, rate_factor
from evergraft.training.pretrain import pretrain
from tests.training.comparison import metrics


def test_the_clock_is_a_budget(small_recipe, tmp_path, monkeypatch):
    """By a clock that moves ten milliseconds whenever it is asked."""
    clock = itertools.count()
    monkeypatch.setattr("evergraft.training.budget.time", SimpleNamespace(monotonic=lambda: next(clock) / 100))
    result = pretrain(small_recipe(steps=None, minutes=0.03), tmp_path / "run")
    assert 1.8 <= result.seconds < 2
    rates = [line["learning_rate"] for line in metrics(tmp_path / "run") if "loss" in line]
    assert max(rates) > rates[-1]
    assert json.loads((tmp_path / "run" / "topology.jsonl").read_text().splitlines()[-1])["update"] >= 5


def test_a_budget_of_steps_ends_with_them():
    budget = Budget(10, None)
    assert [budget.progress(step) for step in (0, 5, 10, 11)] == [0, 0.5, 1, 1]


def test_the_clock_stands_still_while_paused_and_goes_on_where_it_was(monkeypatch):
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr("evergraft.training.budget.time", SimpleNamespace(monotonic=lambda: now.seconds))
    budget = Budget(None, 60.0)
    budget.start(elapsed=20.0)
    now.seconds += 10
    with budget.paused():
        now.seconds += 1000
    now.seconds += 15
    assert budget.elapsed == 45
    assert budget.progress(step=0) == 0.75


def test_the_rate_rises_to_its_peak_and_falls_to_zero():
    assert [rate_factor(progress, 0.2) for progress in (0, 0.1, 0.2, 0.6, 1)] == [0, 0.5, 1, 0.5, 0]
    assert rate_factor(0, 0) == 1
