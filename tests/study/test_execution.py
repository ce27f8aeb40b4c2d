"""Studies that are run and stopped, and in which runs fail: with a stub in place of `evergraft pretrain`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from evergraft.errors import EvergraftError
from evergraft.study import execution as runner
from evergraft.study.execution import StudyInterrupted, run_study
from evergraft.study.status import is_running, status_report, study_status
from tests.study.stub import states


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


def test_a_run_that_another_study_begins_meanwhile_is_not_taken_for_ours(study, behave, monkeypatch):
    def begin_as_another(study, run):
        raise EvergraftError(f"{study.path} has changed since {run.folder} began")

    monkeypatch.setattr(runner, "check_run_unchanged", begin_as_another)
    with pytest.raises(EvergraftError, match="has changed since"):
        run_study(study)
    assert not any(run.folder.exists() for run in study.runs)
