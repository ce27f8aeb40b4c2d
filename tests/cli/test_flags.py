"""Flags that come from the fields of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
import typer

from evergraft.cli import app
from evergraft.cli.flags import _flag_type, described, with_recipe_flags
from evergraft.runs.recipe import Recipe
from evergraft.settings import Choices


@pytest.fixture
def pretrain():
    """The parameters of `evergraft pretrain` by name."""
    command = typer.main.get_command(app).commands["pretrain"]
    return {parameter.name: parameter for parameter in command.params}


def test_every_field_is_a_flag(pretrain):
    assert pretrain.keys() >= Recipe.model_fields.keys()
    for name in Recipe.model_fields:
        assert pretrain[name].opts == [f"--{name.replace('_', '-')}"]


def test_help_tells_defaults_and_choices(pretrain):
    assert pretrain["block"].help.endswith("(default: 16x16).")
    assert pretrain["corpus"].help.endswith("(default: builtin:docstrings).")
    assert pretrain["compile"].help.endswith("(default: off).")
    assert "cosine, linear, constant" in pretrain["prune_decay"].help
    assert "l1, l2, linf, random" in pretrain["prune_by"].help
    assert "default: None" not in " ".join(parameter.help or "" for parameter in pretrain.values())


def test_help_asks_a_field_for_its_names(monkeypatch):
    monkeypatch.setattr(Recipe.model_fields["backend"], "metadata", [Choices(lambda: ["one", "two"])])
    assert described("backend").endswith(": one, two")


@pytest.mark.parametrize(
    ("field", "flag"),
    [
        (int, int),
        (float | None, float),
        (bool, bool),
        (str, str),
        (Literal["a", "b"], str),
        (tuple[int, int], str),
        (tuple[str, ...], list[str]),
        (list[str], list[str]),
        (tuple[tuple[str, float], ...] | None, list[str]),
        (Annotated[list[str], "validator"] | None, list[str]),
    ],
)
def test_types(field, flag):
    assert _flag_type(field) == flag


def test_a_command_gets_the_fields_that_were_given():
    got = []
    own = typer.Typer()

    @own.command()
    @with_recipe_flags
    def command(name: str = "x", *, fields):
        got.append((name, fields))

    own(["--density", "0.2", "--corpus", "a", "--corpus", "b", "--block", "16x1"], standalone_mode=False)
    assert got == [("x", {"density": 0.2, "corpus": ["a", "b"], "block": "16x1"})]


def test_flags_that_may_be_given_again():
    got = []
    own = typer.Typer()

    @own.command()
    @with_recipe_flags
    def command(*, fields):
        got.append(Recipe(steps=100, **fields))

    overrides = ["--overrides", "*.attention.*=0.2", "--overrides", "*.output.dense=16x1"]
    own([*overrides, "--exclude", "*.0.*", "--exclude", "*.1.*"], standalone_mode=False)
    assert got[0].exclude == ("*.0.*", "*.1.*")
    assert got[0].of_layer("encoder.attention.query") == (0.2, (16, 16))
    assert got[0].of_layer("encoder.output.dense") == (0.1, (16, 1))
