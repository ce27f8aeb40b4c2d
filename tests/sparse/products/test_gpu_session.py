"""`make gpu-session` without a GPU: what it would call exists, limits hold, and results are written as they come."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer

from evergraft.cli import app

ROOT = Path(__file__).parents[3]


@contextmanager
def imported(path):
    """A script as a module, for a while."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[spec.name]


@pytest.fixture(scope="module")
def session():
    with imported(ROOT / "benchmarks" / "gpu_session.py") as module:
        yield module


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_scripts_find_what_they_import(path):
    with imported(path) as module:
        assert module.__doc__


def test_every_command_is_one(session, tmp_path):
    """Of the command line every option is known, of scripts and tests every file is there."""
    bench = typer.main.get_command(app).commands["bench"]
    for part in session.parts(tmp_path):
        for command in part.commands:
            assert command[0] == sys.executable
            if command[1:4] == ["-m", "evergraft", "bench"]:
                with bench.commands[command[4]].make_context(command[4], command[5:]) as context:
                    assert context.params["device"] == "cuda"
            else:
                files = [word for word in command if word.endswith(".py")]
                assert files
                assert all((ROOT / file).is_file() for file in files)


def test_parts_fit_the_budget(session, tmp_path):
    needed = [part.seconds for part in session.parts(tmp_path) if part.name not in ("indices", "charts")]
    assert sum(needed) <= session.BUDGET < 540


def test_what_a_stopped_command_printed_and_started(session, tmp_path):
    """The second command gets what the first leaves; a command that is stopped takes its children with it."""
    stopped = "import subprocess, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
    commands = [[sys.executable, "-c", text] for text in ("print('first'); exit(3)", stopped, "print('third')")]
    done = session.run(session.Part("some things", 10, commands), 10, tmp_path)
    assert done["exit_codes"] == [3, 124, 124]
    assert (tmp_path / "some-things-0.log").read_text() == "first\n"
    child = int((tmp_path / "some-things-1.log").read_text())
    assert any(ended(child) or time.sleep(0.1) for _ in range(100))  # the kernel takes its time with what was killed


def ended(process: int) -> bool:
    """Whether a process is gone, or dead and not yet waited for."""
    try:
        return (Path("/proc") / str(process) / "stat").read_text().split()[2] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_results_are_written_part_by_part(session, tmp_path, monkeypatch, capsys):
    commands = [[sys.executable, "-c", f"exit({code})"] for code in (0, 1)]
    parts = [session.Part("good", 20, commands[:1]), session.Part("bad", 20, commands, side_by_side=True)]
    monkeypatch.setattr(session, "parts", lambda results: parts)
    monkeypatch.setattr(session, "FACTS", 'print(\'{"gpu": "a GPU"}\')')
    monkeypatch.setattr(sys, "argv", ["gpu_session.py", str(tmp_path / "results")])
    assert session.main() == 1
    written = json.loads((tmp_path / "results" / "session.json").read_text())
    assert written["gpu"] == "a GPU"
    assert [part["exit_codes"] for part in written["parts"]] == [[0], [0, 1]]
    assert capsys.readouterr().out.count("exit codes") == 2


@pytest.mark.parametrize(("needed", "says"), [((), "torch sees"), (("no_such_module",), "lacks no_such_module")])
def test_what_is_missing_is_told(needed, says, session, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(session, "NEEDED", needed)
    monkeypatch.setattr(session, "FACTS", "exit(1)")
    monkeypatch.setattr(sys, "argv", ["gpu_session.py", str(tmp_path / "results")])
    assert session.main() == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_the_training_part_runs(tmp_path):
    """On the CPU, tiny; the real compiler takes its time."""
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_training.py"), "--output", str(tmp_path / "runs.json")]
    sizes = ["--model", "tiny", "--steps", "20", "--batch-size", "4", "--device", "cpu"]
    subprocess.run([*command, *sizes], check=True, capture_output=True)
    (result,) = json.loads((tmp_path / "runs.json").read_text())
    assert result["runs"].keys() == {"reference", "eager", "compiled"}
