"""Errors in the words of the command line: arguments of the library become flags."""

from __future__ import annotations

import pytest
import typer

from evergraft.cli import app
from evergraft.cli.translation import with_flags


@pytest.fixture
def prepare():
    """The parameters of `evergraft corpus prepare`."""
    return typer.main.get_command(app).commands["corpus"].commands["prepare"].params


@pytest.mark.parametrize(
    ("library", "command_line"),
    [
        ("`vocabulary_size` must be 128", "--vocabulary-size must be 128"),
        ("name - once in `sources`", "name - once in SOURCES"),
        ("lower `learning_rate`, or see `field: value`", "lower `learning_rate`, or see `field: value`"),
        ("with evergraft corpus prepare - --output DIR", "with evergraft corpus prepare - --output DIR"),
        ("`as_json`", "--json"),
    ],
)
def test_options_alone_become_flags(prepare, library, command_line):
    assert with_flags(library, prepare) == command_line


def every_command(group):
    """All commands beneath a group, at any depth."""
    for command in group.commands.values():
        yield from every_command(command) if hasattr(command, "commands") else [command]


def test_every_command_translates():
    commands = list(every_command(typer.main.get_command(app)))
    assert len(commands) >= 12
    assert {type(command).__name__ for command in commands} == {"Command"}
