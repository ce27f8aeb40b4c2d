"""Finished runs made of figures alone, and a small study that was really run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from evergraft.files.folders import write_atomically
from evergraft.runs.recipe import Recipe
from evergraft.study.collection import Collection, RunRecord, _configurations
from evergraft.study.execution import run_study
from evergraft.study.grid import family_of, load_study
from evergraft.training.pretrain import pretrain


@pytest.fixture(scope="session")
def record():
    """A function from a loss, a cost and recipe fields to a finished run."""

    def make(loss: float, cost: float = 1.0, text: str = "text", family: str | None = None, **fields) -> RunRecord:
        recipe = Recipe(**{"steps": 1000, **fields})
        recipe = recipe.model_copy(update={"updates": recipe.updates_or_default})
        size = {"weights": cost, "gradients": cost, "optimizer": 2 * cost, "indices": 0}
        result = {
            "validation_mlm_loss": loss,
            "validation_nsp_loss": 0.69,
            "flops_total": cost,
            "seconds": cost,
            "density": recipe.density,
            "explored": None if recipe.density == 1 else 0.5,
            "removed_new_ratio": None,
            "bytes": size,
            "bytes_dense": size,
        }
        environment = {"corpus_identity": text}
        return RunRecord(
            f"run-{recipe.seed}", family or family_of(recipe), Path("nowhere"), recipe, result, environment
        )

    return make


@pytest.fixture(scope="session")
def configurations():
    """A function from records to configurations."""
    return _configurations


@pytest.fixture(scope="session")
def collection():
    """A function from records to a collection."""
    return lambda *records: Collection("Title", "", _configurations(records))


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
    """The same, run to its end: most of it here, where torch is loaded already, the rest by the runner."""
    study = load_study(study_file)
    study.output.mkdir()
    for run in study.runs:
        if run.recipe.block != (5, 5) and run.name != "static-config-d0.25-4x4-updates0-s2":
            write_atomically(run.recipe_file, run.recipe.to_yaml())
            pretrain(run.recipe, run.folder)
    return study, run_study(study, jobs=2)
