"""Finished runs made of numbers alone, and a small study that was really run."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import yaml

from evergraft.files.folders import write_atomically
from evergraft.study import execution
from evergraft.study.collection import Collection, gather
from evergraft.study.execution import run_study
from evergraft.study.grid import load_study
from evergraft.study.record import RunRecord
from evergraft.training.pretrain import pretrain
from tests.study.records import make_record
from tests.study.stub import RESULT, STUB


@pytest.fixture(scope="session")
def record():
    """The function from a loss, a cost, the identity of a text and recipe fields to a finished run."""
    return make_record


@pytest.fixture(scope="session")
def seeds():
    """A function from a mean loss and recipe fields to three finished runs, of seeds 0, 1 and 2."""

    def make(loss: float, spread: float = 0.01, **fields) -> list[RunRecord]:
        return [make_record(loss + spread * (seed - 1), seed=seed, **fields) for seed in (0, 1, 2)]

    return make


@pytest.fixture(scope="session")
def configurations():
    """A function from records to configurations."""
    return gather


@pytest.fixture(scope="session")
def collection():
    """A function from records to a collection."""
    return lambda *records: Collection("Title", "", gather(records))


@pytest.fixture(scope="session")
def study_file(tmp_path_factory, small_recipe) -> Path:
    """A study of eight runs, two of which must fail."""
    folder = tmp_path_factory.mktemp("study")
    fields = {
        name: value
        for name, value in small_recipe(log_every=2).model_dump(mode="json").items()
        if name not in ("seed", "density", "block", "updates")
    }
    grid = [
        {"density": 1},
        {"density": 0.25, "block": "4x4", "updates": [0, 6]},
        {"density": 0.25, "block": "5x5", "updates": 0},
    ]
    study = {
        "title": "Small <study>",
        "question": "Does it run?",
        "base": fields,
        "seeds": [1, 2],
        "grid": grid,
        "output": str(folder / "out"),
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study))
    return path


@pytest.fixture(scope="session")
def finished_study(study_file):
    """The study of `study_file` and its statuses after all was run: most of it here, where torch is loaded already."""
    study = load_study(study_file)
    study.output.mkdir()
    for run in study.runs:
        if run.recipe.block != (5, 5) and run.name != "static-config-d0.25-4x4-updates0-s2":
            write_atomically(run.recipe_file, run.recipe.to_yaml())
            pretrain(run.recipe, run.folder)
    return study, run_study(study, jobs=2)


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

    monkeypatch.setattr(execution, "command", command)
    monkeypatch.setattr(execution, "POLL", 0.02)
    monkeypatch.setattr(execution.Run, "open", lambda folder: pytest.fail("no real run here"), raising=True)
    monkeypatch.setattr(execution, "_environment", lambda run, slot, jobs: dict(os.environ))
    return behaviours
