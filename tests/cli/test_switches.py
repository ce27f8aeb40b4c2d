"""Flags that are switches: on, or off again where a recipe's file has put them on."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from evergraft.training import pretrain as training


@pytest.mark.parametrize(("flag", "expected"), [("--compile", True), ("--no-compile", False)])
def test_compile(flag, expected, run, small_recipe, tmp_path, monkeypatch):
    def pretrain(recipe, output):
        return SimpleNamespace(to_dict=lambda: {"compile": recipe.compile})

    monkeypatch.setattr(training, "pretrain", pretrain)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(small_recipe(compile=not expected).to_yaml())
    assert json.loads(run("pretrain", "--recipe", recipe, flag, "--json")[1]) == {"compile": expected}
