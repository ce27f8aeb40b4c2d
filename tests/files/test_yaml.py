"""YAML files of fields, and what they are refused for."""

from __future__ import annotations

import pytest

from evergraft import EvergraftError
from evergraft.files.yaml import read_yaml


def test_fields_are_read(tmp_path):
    (tmp_path / "a.yaml").write_text("density: 0.1\nblock: 16x1\n")
    assert read_yaml(tmp_path / "a.yaml", "recipe") == {"density": 0.1, "block": "16x1"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "recipe .* does not exist; expected a YAML file of recipe fields"),
        ("a: [", "is not YAML"),
        ("a: 1\na: 2", "a stands twice in one place"),
        ("- a", "must hold `field: value` lines; got list"),
        ("1: a", "must hold `field: value` lines; got a field called 1"),
        ("", "must hold `field: value` lines; got NoneType"),
    ],
)
def test_refusals(tmp_path, content, says):
    path = tmp_path / "a.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(EvergraftError, match=says):
        read_yaml(path, "recipe")
