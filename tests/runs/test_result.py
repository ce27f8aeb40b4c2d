"""The result of a run: what it must hold, and the files of other versions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from evergraft import EvergraftError
from evergraft.runs.result import RunResult, read_result

RELEASED = Path(__file__).parents[1] / "released" / "0.1.0" / "finished" / "result.json"
ADVICE = "write it again"


@pytest.fixture
def stored(tmp_path):
    """A function from changed figures to a result.json that holds them."""

    def write(**figures):
        path = tmp_path / "result.json"
        path.write_text(json.dumps(json.loads(RELEASED.read_text()) | figures))
        return path

    return write


def test_a_released_result_is_read_and_would_be_written_the_same():
    result = read_result(RELEASED, ADVICE)
    assert json.dumps(result.to_dict(), indent=1) == RELEASED.read_text()
    assert result.bytes.total == sum(result.to_dict()["bytes"].values())


def test_figures_that_another_version_has_written_are_kept(stored):
    assert read_result(stored(energy=3.5), ADVICE).to_dict()["energy"] == 3.5


@pytest.mark.parametrize(
    ("figures", "fault"),
    [
        ({"validation_mlm_loss": float("nan")}, "validation_mlm_loss: "),
        ({"validation_mlm_loss": -1.0}, "validation_mlm_loss: .*; got -1.0"),
        ({"steps": 1.5}, "steps: .*; got 1.5"),
        ({"flops_total": 0}, "flops_total: .*; got 0"),
        ({"bytes": {}}, "bytes.weights: Field required"),
    ],
)
def test_a_figure_that_cannot_be_is_told(stored, figures, fault):
    with pytest.raises(EvergraftError, match=f"result.json is torn: {fault}.*; {ADVICE}"):
        read_result(stored(**figures), ADVICE)


@pytest.mark.parametrize("content", ["{", "[1]", "{}"])
def test_a_torn_file_is_told(tmp_path, content):
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(EvergraftError, match=f"result.json is torn.*; {ADVICE}"):
        read_result(tmp_path / "result.json", ADVICE)


def test_a_result_is_frozen():
    result = RunResult(**json.loads(RELEASED.read_text()))
    with pytest.raises(ValidationError, match="frozen"):
        result.steps = 1
