"""The environment of a run: what it records, and the files of other versions."""

from __future__ import annotations

import json
import subprocess

import pytest

from evergraft import EvergraftError, __version__
from evergraft.runs import environment
from evergraft.runs.environment import Environment, RunEnvironment
from evergraft.runs.folder import Run

INPUTS = {"corpus": "/text", "corpus_identity": "ab", "model_identity": None, "device": "cpu"}


def test_an_environment_is_written_and_read_again():
    here = RunEnvironment.here(**INPUTS)
    assert here.versions["evergraft"] == __version__
    assert RunEnvironment(**json.loads(json.dumps(here.to_dict()))) == here
    assert list(here.to_dict()) == [*Environment.here().to_dict(), *INPUTS]


def test_what_another_version_has_written_is_kept():
    newer = RunEnvironment.here(**INPUTS).to_dict() | {"hostname": "gamma"}
    assert RunEnvironment(**newer).to_dict() == newer
    older = {name: value for name, value in newer.items() if name != "device"}
    assert RunEnvironment(**older).device is None


def test_a_torn_environment_is_told(small_recipe, tmp_path):
    run = Run.create(tmp_path / "run", small_recipe(), RunEnvironment.here(**INPUTS))
    assert run.environment.corpus == "/text"
    path = run.folder / "environment.json"
    for content, reason in {
        "{": "is torn; restore it",
        '{"corpus": "x"}': "is torn: it lacks command, commit",
        json.dumps(run.environment.to_dict() | {"threads": "two"}): "is torn: threads: .*; got 'two'",
    }.items():
        path.write_text(content)
        with pytest.raises(EvergraftError, match=f"environment.json {reason}"):
            _ = run.environment
    path.unlink()
    with pytest.raises(EvergraftError, match=r"environment\.json is missing; restore it"):
        _ = run.environment


def test_a_commit_is_that_of_the_sources(tmp_path, monkeypatch):
    source = tmp_path / "run.py"
    source.touch()
    monkeypatch.setattr(environment, "__file__", str(source))
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "of another project"], check=True)
    assert Environment.here().commit is None
    subprocess.run([*git, "add", "run.py"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "of this one"], check=True)
    assert len(Environment.here().commit) == 40
