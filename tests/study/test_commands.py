"""`evergraft study`, `report` and `finetune`: JSON, exit codes, and one clear sentence for what can be wrong."""

from __future__ import annotations

import json

import pytest
import yaml


def test_study_commands(run, finished_study):
    study, _ = finished_study
    code, out, _ = run("study", "status", study.path, "--json")
    report = json.loads(out)
    assert code == 0
    assert out.count("\n") == 1
    assert (report["runs"], len(report["finished"])) == (8, 6)
    assert list(report["failed"]) == [study.runs[3].name, study.runs[7].name]
    assert report["seconds_left"] == 0
    code, out, _ = run("study", "status", study.path)
    assert code == 0
    assert "6 finished, 2 failed" in out
    assert f"{study.runs[3].name} failed: layer bert.encoder.layer.0" in out
    assert "block 5x5 does not divide" in out


def test_a_finished_study_has_nothing_to_do(run, finished_study, tmp_path):
    study, _ = finished_study
    fields = yaml.safe_load(study.path.read_text())
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(fields | {"grid": fields["grid"][:2]}))
    code, out, err = run("study", "run", path, "--json")
    assert code == 0
    assert len(json.loads(out)["finished"]) == 6
    assert "6/6" in err


def test_report_commands(run, finished_study, tmp_path, monkeypatch):
    study, _ = finished_study
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("report", study.path, "--output", "page.html")
    assert code == 0
    assert out == "The report is in page.html\n"
    assert (tmp_path / "page.html").stat().st_size > 1e6
    assert run("report", study.path, "--format", "csv")[1].startswith("name,family,model,")
    assert run("report", study.path, "--format", "markdown")[1].startswith("# Small <study>\n")
    assert run("report", study.runs[0].folder, "--format", "csv", "--output", "runs.csv")[0] == 0
    assert (tmp_path / "runs.csv").read_text().count("\n") == 2


def test_finetune_command(run, finished, tmp_path):
    table = tmp_path / "mine.tsv"
    table.write_text("sentence\tlabel\n" + "".join(f"the cat {n}\t{n % 2}\n" for n in range(30)))
    arguments = ("--task", table, "--epochs", 1, "--device", "cpu", "--output", tmp_path / "tuned")
    code, out, err = run("finetune", finished, *arguments, "--json")
    assert code == 0
    assert out.count("\n") == 1
    assert json.loads(out)["metrics"].keys() == {"accuracy", "macro_f1"}
    assert "step 1" in err


BAD = [
    ("study run {missing}.yaml", "missing.yaml does not exist; expected a YAML file of study fields"),
    ("study run {study} --jobs 0", "Input should be greater than or equal to 1"),
    ("study run {list}", "must hold `field: value` lines; got list"),
    ("study run {torn}", "is not YAML"),
    ("study status {missing}.yaml", "does not exist; expected a YAML file of study fields"),
    ("study status {recipe}", "title is missing; a study needs title and grid"),
    ("report {missing}", "is not a run's folder"),
    ("report {finished} --format scores", "no run has been fine-tuned; begin with: evergraft finetune /"),
    ("report {study} --format pdf", "--format must be html, markdown, csv or scores; got pdf"),
    ("report {study}", "no run has finished yet; run it with: evergraft study run"),
    ("report {finished} --steps {missing}", "write one with: evergraft bench step --output"),
    ("report {finished} --steps {study}", "holds no JSON array of results"),
    ("report {finished} --output {folder}", "is a folder; name the file to write"),
    ("report", "Missing argument"),
    ("finetune {missing} --task sst2 --data {folder}", "is not a run's folder"),
    ("finetune {finished}", "Missing option '--task'"),
    ("finetune {finished} --task sst9", "--task must be sst2, mrpc, rte, cola, stsb, or a table"),
    ("finetune {finished} --task rte", "--task rte needs --data"),
    ("finetune {finished} --task rte --data {folder}", "holds neither train.tsv nor rte/train.tsv"),
    ("finetune {finished} --task {missing}.tsv", "does not exist; expected a tab-separated table"),
    ("finetune {finished} --task {missing}.tsv --epochs 0", "Input should be greater than or equal to 1"),
    ("finetune {finished} --task {missing}.tsv --learning-rate 7", "--learning-rate must lie between 0 and 1; got 7"),
    ("finetune {finished} --task {missing}.tsv --device tpu", "tpu"),
]


@pytest.fixture
def places(tmp_path, finished):
    files = {
        "study": "title: T\nbase: {steps: 100}\ngrid: {density: 1}\noutput: nowhere\n",
        "list": "- title\n",
        "torn": "title: [T\n",
        "recipe": "steps: 100\n",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "folder").mkdir()
    named = {name: tmp_path / f"{name}.yaml" for name in files}
    return named | {"missing": tmp_path / "missing", "folder": tmp_path / "folder", "finished": finished}


@pytest.mark.parametrize(("arguments", "sentence"), BAD, ids=[arguments for arguments, _ in BAD])
def test_bad_input(run, places, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run(*arguments.format(**places).split())
    assert code == 2
    assert out == ""
    assert sentence in err
    assert "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before
