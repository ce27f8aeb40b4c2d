"""Runs that were stopped."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.training.stops import cut


@pytest.fixture(scope="session")
def _cut_run(small_recipe, tmp_path_factory) -> Path:
    return cut(small_recipe(), tmp_path_factory.mktemp("cut") / "run")


@pytest.fixture
def cut_run(_cut_run, tmp_path) -> Path:
    """A copy of a run that was cut after its checkpoints of steps 10 and 20."""
    return shutil.copytree(_cut_run, tmp_path / "cut")
