"""How the command line starts, which must be at once, and with which code it leaves."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

HEAVY = {"torch", "transformers", "datasets", "pyarrow", "tokenizers", "numpy", "plotly", "scipy", "sklearn"}


@pytest.mark.parametrize(("arguments", "command"), [([], "pretrain"), (["study"], "status")])
def test_help_needs_nothing_heavy(arguments, command):
    code = (
        f"import sys; sys.argv = {['evergraft', *arguments, '--help']}\n"
        "from evergraft import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        f"heavy = {HEAVY} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert command in done.stdout


def test_version(run):
    assert run("--version")[1].strip()[0].isdigit()


def test_no_command_shows_the_help_and_no_error(run):
    code, out, err = run()
    assert code == 2
    assert "pretrain" in out + err
    assert "error" not in err


def test_a_signal_exits_as_signals_do_and_says_how_to_go_on(small_recipe, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(small_recipe(steps=5000, updates=2).to_yaml())
    command = [sys.executable, "-m", "evergraft", "pretrain", "--recipe", recipe, "--output", tmp_path / "run"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 180
    while not (tmp_path / "run" / "checkpoint-10").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 128 + signal.SIGTERM
    assert out == ""
    assert f"stopped and saved; continue with: evergraft pretrain --resume {tmp_path / 'run'}" in err.replace("\n", "")


def test_ctrl_c_says_stopped(tmp_path):
    command = [sys.executable, "-m", "evergraft", "corpus", "prepare", "-", "--output", tmp_path / "new"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 180
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:  # it waits for text
        time.sleep(0.05)
    while process.poll() is None and time.monotonic() < deadline:  # Python may lose the first one in a callback
        process.send_signal(signal.SIGINT)
        time.sleep(1)
    err = process.stderr.read()
    assert process.returncode == 130
    assert err.endswith("stopped\n")
    assert list(tmp_path.iterdir()) == []
