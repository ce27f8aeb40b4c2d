"""Studies that are run, cut, resumed, and in which runs fail."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import psutil
import pytest
import torch
import yaml

from evergraft.errors import EvergraftError
from evergraft.study import execution as runner
from evergraft.study.collection import collect
from evergraft.study.execution import StudyInterrupted, run_study
from evergraft.study.grid import load_study
from evergraft.study.status import (
    check_unchanged,
    duration,
    is_running,
    print_status,
    seconds_left,
    status_report,
    study_status,
)
from evergraft.training.pretrain import pretrain
from tests.kernels.comparison import differences

# Stands for `evergraft pretrain`: does what it is told in the folder given, in no time.
STUB = """
import json, pathlib, signal, sys, time
folder, behaviour = pathlib.Path(sys.argv[1]), sys.argv[2]
folder.mkdir(exist_ok=True)
(folder / "recipe.yaml").write_text("{}")
(folder / "began").open("a").write("x")
if behaviour == "fail":
    sys.exit("error: the loss is nan; training has diverged")
if behaviour == "die":
    signal.raise_signal(signal.SIGKILL)
if behaviour == "wait":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    time.sleep(30)
time.sleep(0.3)
(folder / "result.json").write_text(sys.argv[3])
"""
SIZES = {"weights": 1, "gradients": 1, "optimizer": 2, "indices": 0}
RESULT = {
    "steps": 100, "tokens": 100, "seconds": 1.0, "flops_total": 1.0, "bytes": SIZES, "bytes_dense": SIZES,
    "density": 1.0, "explored": None, "removed_new_ratio": None, "validation_mlm_loss": 2.0, "validation_nsp_loss": 0.7,
}  # fmt: skip


@pytest.fixture
def study(tmp_path):
    """A study of four short runs by the learning rate."""
    path = tmp_path / "study.yaml"
    grid = {"learning_rate": [1e-3, 2e-3, 3e-3, 4e-3], "density": 1}
    fields = {"title": "A study", "base": {"model": "tiny", "steps": 100}, "grid": grid}
    path.write_text(yaml.safe_dump(fields | {"output": str(tmp_path / "out")}))
    return load_study(path)


@pytest.fixture
def behave(monkeypatch):
    """Let the stub stand for pretrain; a dict from a run's number to what it shall do."""
    behaviours: dict[int, str] = {}

    def command(run):
        number = round(run.recipe.learning_rate * 1000)
        behaviour = behaviours.get(number, "work")
        return [sys.executable, "-S", "-c", STUB, str(run.folder), behaviour, json.dumps(RESULT)]

    monkeypatch.setattr(runner, "command", command)
    monkeypatch.setattr(runner, "POLL", 0.02)
    monkeypatch.setattr(runner.Run, "open", lambda folder: pytest.fail("no real run here"), raising=True)
    monkeypatch.setattr(runner, "_environment", lambda run, slot, jobs: dict(os.environ))
    return behaviours


def states(statuses) -> list[str]:
    return [status.state for status in statuses]


def test_failures_are_isolated_and_told_and_tried_again(study, behave):
    behave |= {1: "fail", 3: "die"}
    statuses = run_study(study)
    assert states(statuses) == ["failed", "finished", "failed", "finished"]
    assert statuses[0].reason == "the loss is nan; training has diverged"
    assert statuses[2].reason == "killed by SIGKILL; out of memory?"
    report = status_report(study, statuses, 1)
    assert report["failed"] == {study.runs[0].name: statuses[0].reason, study.runs[2].name: statuses[2].reason}
    assert len(report["finished"]) == 2
    behave.clear()
    assert states(run_study(study)) == ["finished"] * 4
    begun = [(run.folder / "began").read_text() for run in study.runs]
    assert begun == ["xx", "x", "xx", "x"]  # finished runs are not repeated
    assert not list(study.output.glob("*.error"))


def test_runs_go_side_by_side(study, behave):
    running = []
    watch = threading.Thread(target=lambda: running.extend(_watch(study)))
    watch.start()
    run_study(study, jobs=3)
    watch.join()
    assert max(running) == 3


def _watch(study) -> list[int]:
    counts, until = [], time.monotonic() + 20
    while time.monotonic() < until and sum(status.state == "finished" for status in study_status(study)) < 4:
        counts.append(states(study_status(study)).count("running"))
        time.sleep(0.01)
    return counts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_runs_and_the_study_goes_on_later(study, behave, number):
    behave |= {1: "wait", 2: "wait"}
    main = threading.get_ident()
    began = [study.runs[0].folder / "began", study.runs[1].folder / "began"]

    def stop():
        until = time.monotonic() + 20
        while time.monotonic() < until and not all(path.exists() for path in began):
            time.sleep(0.01)
        time.sleep(0.2)
        signal.pthread_kill(main, number)

    threading.Thread(target=stop).start()
    with pytest.raises(StudyInterrupted, match=f"stopped and saved; continue with: evergraft study run {study.path}"):
        run_study(study, jobs=2)
    assert states(study_status(study)) == ["stopped", "stopped", "waiting", "waiting"]
    behave.clear()
    assert states(run_study(study, jobs=2)) == ["finished"] * 4


def test_a_signal_while_runs_are_started_reaches_them(study, behave, monkeypatch):
    behave |= {1: "wait", 2: "wait"}

    def environment(run, slot, jobs):
        signal.raise_signal(signal.SIGTERM)
        return dict(os.environ)

    monkeypatch.setattr(runner, "_environment", environment)
    began = time.monotonic()
    with pytest.raises(StudyInterrupted):
        run_study(study, jobs=2)
    assert time.monotonic() - began < 15  # the stub would wait for 30 s
    assert not study.runs[1].folder.exists()


def test_a_title_is_text(study, behave, capsys):
    titled = replace(study, title="A [bold]title[/x]")
    statuses = run_study(titled)
    print_status(titled, statuses, 1)
    assert "A [bold]title[/x]" in capsys.readouterr().out


def test_a_run_that_another_process_is_at_is_waited_for(study, behave):
    study.output.mkdir()
    run = study.runs[1]
    holder = "import fcntl, sys, time; f = open(sys.argv[1], 'ab'); fcntl.flock(f, 2); print(flush=True); time.sleep(1)"
    with subprocess.Popen([sys.executable, "-c", holder, str(run.log)], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert is_running(run.log)
        assert states(study_status(study)) == ["waiting", "running", "waiting", "waiting"]
        statuses = run_study(study)
        assert process.poll() is not None
    assert states(statuses) == ["finished"] * 4


def test_what_a_kill_left_before_the_recipe_is_cleared(study, behave):
    folder = study.runs[0].folder
    folder.mkdir(parents=True)
    (folder / "environment.json").write_text("{}")
    (folder / "recipe.yaml.partial").write_text("torn")
    run_study(study)
    assert not (folder / "environment.json").exists()
    assert not (folder / "recipe.yaml.partial").exists()


def test_an_error_of_the_study_itself_leaves_no_run_behind(study, behave, monkeypatch):
    behave |= {1: "wait"}

    def full(run, slot, jobs):
        if slot == 1:
            raise OSError(28, "No space left on device")
        return dict(os.environ)

    monkeypatch.setattr(runner, "_environment", full)
    with pytest.raises(OSError, match="No space left"):
        run_study(study, jobs=2)
    assert not is_running(study.runs[0].log)


def test_threads_and_gpus_are_shared_out(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert [runner.threads_of(jobs) for jobs in (1, 3, 16)] == [8, 2, 1]
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert runner.threads_of(1) == len(os.sched_getaffinity(0))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert [runner.gpu_of(slot) for slot in range(3)] == ["4", "6", "4"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert runner.gpu_of(0) is None


def test_a_real_study(finished_study):
    study, statuses = finished_study
    assert states(statuses) == ["finished", "finished", "finished", "failed"] * 2
    assert statuses[3].reason.startswith("block 5x5 does not divide a weight of")
    assert statuses[0].loss == json.loads((study.runs[0].folder / "result.json").read_text())["validation_mlm_loss"]
    assert not study.runs[3].folder.exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is torn; remove it and run the study again"),
        (json.dumps(RESULT | {"validation_mlm_loss": None}), "is torn: validation_mlm_loss: Input should be a valid"),
    ],
)
def test_a_torn_result_is_told(study, text, sentence):
    study.runs[0].folder.mkdir(parents=True)
    (study.runs[0].folder / "result.json").write_text(text)
    status = study_status(study)[0]
    assert status.state == "failed"
    assert sentence in status.reason


def test_a_changed_study_is_told(finished_study, tmp_path):
    study, _ = finished_study
    fields = yaml.safe_load(study.path.read_text())
    fields["base"]["learning_rate"] = 5e-3
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(fields))
    changed = load_study(path)
    for ask in (run_study, check_unchanged, lambda _: collect([path])):
        with pytest.raises(EvergraftError) as refused:
            ask(changed)
        assert "has changed since" in str(refused.value)
        assert "learning_rate is 0.005, was 0.001; restore it" in str(refused.value)


def test_a_run_that_another_study_begins_meanwhile_is_not_taken_for_ours(study, behave, monkeypatch):
    def begin_as_another(study, run):
        raise EvergraftError(f"{study.path} has changed since {run.folder} began")

    monkeypatch.setattr(runner, "check_run_unchanged", begin_as_another)
    with pytest.raises(EvergraftError, match="has changed since"):
        run_study(study)
    assert not any(run.folder.exists() for run in study.runs)


def test_a_foreign_run_is_not_taken_over(finished_study, tmp_path):
    study, _ = finished_study
    fields = yaml.safe_load(study.path.read_text()) | {"output": str(tmp_path / "out")}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(fields))
    copied = load_study(path)
    shutil.copytree(study.runs[0].folder, copied.runs[0].folder)
    with pytest.raises(EvergraftError, match="holds a run that this study did not begin"):
        run_study(copied)


def test_time_left(study, behave):
    study.output.mkdir()
    assert seconds_left(study_status(study), 1) is None
    first, second = study.runs[:2]
    first.folder.mkdir()
    (first.folder / "result.json").write_text(json.dumps(RESULT | {"seconds": 100.0}))
    second.folder.mkdir()
    line = {"step": 50, "tokens": 1, "seconds": 40.0, "mlm_loss": 3.0}
    (second.folder / "metrics.jsonl").write_text(json.dumps(line) + "\n" + '{"step": 60, "tok')
    statuses = study_status(study)
    assert (statuses[1].state, statuses[1].progress, statuses[1].loss) == ("stopped", 0.5, 3.0)
    assert seconds_left(statuses, 1) == pytest.approx(40 + 90 + 90)
    assert seconds_left(statuses, 2) == pytest.approx(110)
    assert [duration(seconds) for seconds in (5, 600, 7500)] == ["5 s", "10 min", "2 h 05 min"]


@pytest.mark.parametrize("cut", ["study stopped", pytest.param("run killed", marks=pytest.mark.slow)])
def test_a_cut_study_resumes_bit_for_bit(small_recipe, tmp_path, cut):
    """The weights are those of a run that was never cut."""
    base = small_recipe(steps=400, updates=20)
    pretrain(base, tmp_path / "reference")
    fields = {name: value for name, value in base.model_dump(mode="json").items() if name != "seed"}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({"title": "Cut", "base": fields, "grid": {}, "output": str(tmp_path / "out")}))
    run = load_study(path).runs[0]
    command = [sys.executable, "-m", "evergraft", "study", "run", str(path), "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    with subprocess.Popen(command, env=environment, **pipes) as study:
        until = time.monotonic() + 120
        while time.monotonic() < until and not list(run.folder.glob("checkpoint-?0")):
            time.sleep(0.02)
        if cut == "study stopped":
            study.send_signal(signal.SIGTERM)
        else:
            psutil.Process(study.pid).children()[0].kill()
        out, said = study.communicate()
    if cut == "study stopped":
        assert study.returncode == 143
        assert f"continue with: evergraft study run {path}" in said.replace("\n", "")
    else:
        assert study.returncode == 1
        assert json.loads(out)["failed"] == {run.name: "killed by SIGKILL; out of memory?"}
    assert not (run.folder / "result.json").exists()
    done = subprocess.run(command, env=environment, **pipes)
    assert json.loads(done.stdout)["finished"] == [run.name]
    assert differences(tmp_path / "reference", run.folder) == []
