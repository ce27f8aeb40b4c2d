"""A study that was cut goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
import yaml

from evergraft.study.grid import load_study
from evergraft.training.pretrain import pretrain
from tests.training.comparison import differences


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
