"""The folder of a run: made, opened, and found again to be resumed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from evergraft import EvergraftError
from evergraft.runs.environment import RunEnvironment
from evergraft.runs.folder import Run, find_resumable


@pytest.fixture
def begun(small_recipe, tmp_path):
    """A run that has done nothing yet."""
    return Run.create(tmp_path / "run", small_recipe(), RunEnvironment.here(corpus="/text", corpus_identity="ab"))


def test_a_run_that_has_only_begun(begun):
    run = Run.open(begun.folder)
    assert run.recipe == begun.recipe
    assert run.identity == begun.identity
    assert run.result is None
    with pytest.raises(EvergraftError, match="has not finished; finish it with: evergraft pretrain --resume"):
        _ = run.finished_result
    with pytest.raises(EvergraftError, match="holds no finished model; finish the run with: evergraft pretrain"):
        _ = run.model_folder
    found, checkpoint = find_resumable(begun.folder)
    assert found.folder == begun.folder
    assert checkpoint is None


def test_a_folder_in_use_is_left_alone(begun):
    with pytest.raises(EvergraftError, match="exists already; choose another `output`, or continue that run with"):
        Run.create(begun.folder, begun.recipe, begun.environment)


def test_what_is_no_run_is_told(begun, tmp_path):
    with pytest.raises(EvergraftError, match=r"is not a run's folder: it holds no recipe.yaml"):
        Run.open(tmp_path)
    with pytest.raises(EvergraftError, match=r"checkpoint-7 does not exist; resume from the run with"):
        find_resumable(begun.folder / "checkpoint-7")


def test_another_recipe_or_another_text_is_another_run(begun, small_recipe, tmp_path):
    facts = begun.environment
    other_recipe = Run.create(tmp_path / "a", small_recipe(seed=1), facts)
    other_text = Run.create(tmp_path / "b", begun.recipe, facts.model_copy(update={"corpus_identity": "cd"}))
    assert len({begun.identity, other_recipe.identity, other_text.identity}) == 3


def test_runs_are_opened_without_torch():
    """So that the state of a study is told at once."""
    code = "import sys, evergraft.runs.folder; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
