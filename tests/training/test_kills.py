"""A run that is killed at any moment resumes bit for bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from evergraft.training.pretrain import resume
from tests.training.comparison import differences

DRIVER = """
import sys, time
from pathlib import Path
from evergraft.evolution.updater import TopologyUpdater
from evergraft.runs.recipe import load_recipe
from evergraft.training import state, trainer
from evergraft.training.pretrain import pretrain, resume

def waits(function, mark):
    calls = 0
    def call(*arguments):
        nonlocal calls
        calls += 1
        result = function(*arguments)
        if [mark, str(calls)] == sys.argv[3:]:
            print("here", flush=True)
            time.sleep(600)  # the kill comes here, in the middle
        return result
    return call

state.save_training_state = waits(state.save_training_state, "saving")
trainer.write_checkpoint = waits(trainer.write_checkpoint, "saved")
TopologyUpdater._exchange = waits(TopologyUpdater._exchange, "updating")
if sys.argv[3] == "training":
    print("here", flush=True)
run = Path(sys.argv[1])
if (run / "recipe.yaml").exists():
    resume(run)
else:
    pretrain(load_recipe(Path(sys.argv[2]), {}), run)
"""


def killed(run: Path, recipe: Path, mark: str, call: int = 1, delay: float = 0.0) -> bool:
    """Run or resume, and SIGKILL it inside (`saved`: after) that call of what `mark` names; False if it ended before.

    With the mark `training`, it is killed `delay` seconds after its start.
    """
    command = [sys.executable, "-c", DRIVER, str(run), str(recipe), mark, str(call)]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        if process.stdout.readline():
            time.sleep(delay)
            process.kill()
    return process.returncode == -signal.SIGKILL


def test_sigkill_inside_a_save_inside_an_update_and_at_random(finished, small_recipe, tmp_path):
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(small_recipe().to_yaml())
    assert killed(run, recipe, "updating", 7)  # seven of the twelve layers have changed
    assert killed(run, recipe, "saving")
    assert not list(run.glob("checkpoint-??"))
    assert killed(run, recipe, "saved")
    assert [path.name for path in run.glob("checkpoint-??")] == ["checkpoint-10"]
    assert killed(run, recipe, "updating", 20)
    killed(run, recipe, "training", delay=random.Random(0).uniform(0.2, 2.0))
    resume(run)
    assert differences(finished, run) == []


@pytest.mark.slow
def test_sigkill_at_many_random_moments(finished, small_recipe, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(small_recipe().to_yaml())
    rng = random.Random(1)
    for number in range(10):
        run = tmp_path / f"run{number}"
        for _ in range(rng.randint(1, 4)):
            mark, call = rng.choice([("updating", 72), ("saving", 3), ("saved", 3), ("training", 1)])
            killed(run, recipe, mark, rng.randint(1, call), rng.uniform(0, 6.0) if mark == "training" else 0)
        resume(run)
        assert differences(finished, run) == []
