"""Figures of a run that its report shows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evergraft.files.jsonlines import JsonLines


def test_steady_seconds_leave_a_pause_out(record, tmp_path):
    run = replace(record(3.0, cost=199.0), folder=tmp_path)
    run.result["steps"] = 1000
    ends = [1, 2, 3, 102, 103, 104, 105, 106, 107, 199]  # seconds after each 100 steps, with pauses of about 98 and 91
    log = JsonLines(tmp_path / "metrics.jsonl")
    log.append(
        *({"step": 100 * (window + 1), "seconds": end, "flops": 0, "mlm_loss": 3} for window, end in enumerate(ends))
    )
    log.append({"step": 1000, "validation_mlm_loss": 3.0})
    assert run.figures["steady_seconds"] == pytest.approx(10)
    assert run.figures["seconds"] == 199


def test_a_run_of_one_window_has_its_own_seconds(record):
    assert record(3.0, cost=7.0).figures["steady_seconds"] == 7
