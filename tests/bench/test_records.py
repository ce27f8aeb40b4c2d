"""Records of benchmarks: appended to one file, and never to a file of something else."""

from __future__ import annotations

import json

import pytest

from evergraft import EvergraftError
from evergraft.bench.records import append

RESULT = {"bench": "products", "ratio": 4.0}


def test_results_are_appended(tmp_path):
    assert append(tmp_path, RESULT) == tmp_path / "products.json"
    append(tmp_path / "products.json", RESULT | {"seed": 1})
    assert [result.get("seed") for result in json.loads((tmp_path / "products.json").read_text())] == [None, 1]


@pytest.mark.parametrize("content", ["not json", '{"a": 1}'])
def test_a_foreign_file_is_left_alone(tmp_path, content):
    (tmp_path / "file.json").write_text(content)
    with pytest.raises(EvergraftError, match="holds no JSON array of results"):
        append(tmp_path / "file.json", RESULT)
    assert (tmp_path / "file.json").read_text() == content
