"""A finished run, read from its folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from evergraft.errors import EvergraftError
from evergraft.files.jsonlines import JsonLines
from evergraft.study.record import read_run
from evergraft.study.report import report


def test_steady_seconds_leave_a_pause_out(record, tmp_path):
    run = replace(record(3.0, cost=199.0), folder=tmp_path)
    ends = [1, 2, 3, 102, 103, 104, 105, 106, 107, 199]  # seconds after each 100 steps, with pauses of about 98 and 91
    log = JsonLines(tmp_path / "metrics.jsonl")
    log.append(
        *({"step": 100 * (window + 1), "seconds": end, "flops": 0, "mlm_loss": 3} for window, end in enumerate(ends))
    )
    log.append({"step": 1000, "validation_mlm_loss": 3.0})
    assert run.steady_seconds == pytest.approx(10)
    assert run.result.seconds == 199


def test_a_run_of_one_window_has_its_own_seconds(record):
    assert record(3.0, cost=7.0).steady_seconds == 7


def test_a_step_that_was_logged_twice_counts_once(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    twice = next(line for line in lines if "mlm_loss" in line and "seconds" in line)
    (run / "metrics.jsonl").write_text("\n".join([twice, *lines]) + "\n")
    once, again = (read_run(folder).steady_seconds for folder in (finished, run))
    assert once == again


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("result.json", "{}", "result.json is torn: it lacks steps, .*; remove .* and have it written again"),
        ("result.json", "[1]", "result.json is torn"),
        ("environment.json", '{"corpus": "x", "corpus_identity": "y"}', "environment.json is torn: it lacks command"),
        (
            "metrics.jsonl",
            '{"step": 1}\n5\n{"step": 2}\n',
            "metrics.jsonl is torn: line 2 holds no step; remove that line",
        ),
        ("metrics.jsonl", '{"step": 1, "seconds": 1}\n', "metrics.jsonl is torn: line 1 lacks flops, mlm_loss; remove"),
        (
            "topology.jsonl",
            '{"step": 1, "explored": 1}\n',
            "topology.jsonl is torn: line 1 lacks layer, removed_new_ratio",
        ),
        (
            "model/config.json",
            "{",
            "config.json has 1 bytes, expected .*; remove .*result.json and have it written again",
        ),
        ("model/model.safetensors", "", "model.safetensors has 0 bytes, expected"),
        ("finetune/x/result.json", "{", "finetune/x/result.json is torn; remove .*finetune/x and fine-tune again"),
        ("metrics.jsonl", '{"step": 1}\n\0\0\n{"step": 2}\n', "metrics.jsonl is torn: line 2 is not JSON"),
    ],
)
def test_a_damaged_run_is_told(finished, tmp_path, name, content, sentence):
    run = shutil.copytree(finished, tmp_path / "run")
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).write_text(content)
    with pytest.raises(EvergraftError, match=sentence):
        report([run], output=tmp_path / "page.html")


@pytest.mark.parametrize(
    ("figure", "value"),
    [
        ("validation_mlm_loss", float("nan")),
        ("validation_mlm_loss", -1.0),
        ("validation_nsp_loss", None),
        ("seconds", "long"),
        ("flops_total", 0),
        ("bytes", {}),
    ],
)
def test_a_figure_that_cannot_be_is_told(finished, tmp_path, figure, value):
    run = shutil.copytree(finished, tmp_path / "run")
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(result | {figure: value}))
    with pytest.raises(EvergraftError, match=f"result.json is torn: {figure}.*; remove .* and have it written again"):
        report([run], output=tmp_path / "page.html")
