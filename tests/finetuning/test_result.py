"""A fine-tuning's result.json, as this version and as older ones wrote it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evergraft.errors import EvergraftError
from evergraft.finetuning.result import read_finetune_result

RELEASED = Path(__file__).parents[1] / "released/0.1.0/finished/finetune/labels-s0/result.json"


def test_a_result_of_0_1_0_is_read_and_written_as_it_was():
    written = RELEASED.read_text()
    assert json.dumps(read_finetune_result(RELEASED).to_dict(), indent=1) == written.rstrip()


def test_a_result_without_the_identity_of_its_data_is_read(tmp_path):
    fields = json.loads(RELEASED.read_text())
    del fields["data_identity"]
    (tmp_path / "result.json").write_text(json.dumps(fields))
    assert read_finetune_result(tmp_path / "result.json").data_identity == ""


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"epochs": "three"},
            "is torn: epochs: Input should be a valid integer; got 'three'; remove .*x and fine-tune",
        ),
        ({"metrics": {"accuracy": "high"}}, "is torn: metrics.accuracy: Input should be a valid number; got 'high'"),
    ],
)
def test_a_result_that_cannot_be_is_told(tmp_path, change, sentence):
    path = tmp_path / "x" / "result.json"
    path.parent.mkdir()
    path.write_text(json.dumps(json.loads(RELEASED.read_text()) | change))
    with pytest.raises(EvergraftError, match=sentence):
        read_finetune_result(path)
