"""Reports of studies and of runs, and targets that are none."""

from __future__ import annotations

import shutil

import pytest

from evergraft.errors import EvergraftError
from evergraft.study.report import report


def test_a_report_of_runs(finished, finished_study, tmp_path):
    study, _ = finished_study
    text, path = report([finished, study.runs[0].folder], output=tmp_path / "new" / "page.html")
    assert path.read_text() == text
    assert "2 runs" in text
    markdown, nowhere = report([finished], "markdown")
    assert nowhere is None
    assert markdown.startswith("# finished\n")
    assert "| MLM loss, nats |" in markdown


def test_bad_targets(finished, tmp_path, finished_study):
    study, _ = finished_study
    bad = [
        ([tmp_path], "is not a run's folder"),
        ([study.path, finished], "report on one study at a time"),
        ([finished, finished], "is named twice"),
        ([tmp_path / "missing.yaml"], "study .* does not exist"),
    ]
    for targets, sentence in bad:
        with pytest.raises(EvergraftError, match=sentence):
            report(targets)
    unfinished = tmp_path / "unfinished"
    shutil.copytree(finished, unfinished, ignore=shutil.ignore_patterns("result.json"))
    with pytest.raises(EvergraftError, match="holds an unfinished run; finish it with"):
        report([unfinished])
    with pytest.raises(EvergraftError, match="is a folder; name the file to write"):
        report([finished], output=tmp_path)
    empty = tmp_path / "empty.yaml"
    empty.write_text(f"title: None yet\nbase: {{steps: 100}}\noutput: {tmp_path / 'none'}\ngrid: {{density: 1}}\n")
    with pytest.raises(EvergraftError, match="no run has finished yet; run it with: evergraft study run"):
        report([empty])


def test_a_run_without_its_model_has_no_pictures(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(run / "model")
    text, _ = report([run], output=tmp_path / "page.html")
    assert 'id="results"' in text
    assert 'id="topologies"' not in text
