"""What fields of a recipe mean to a study: derived from the settings' records, not listed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from evergraft.errors import EvergraftError
from evergraft.evolution.config import EvolutionConfig
from evergraft.runs.recipe import Recipe
from evergraft.settings import Choices
from evergraft.sparse.config import SparsityConfig
from evergraft.study import facts
from evergraft.study.comparison import compared_facts

BASE = {"model": "tiny", "density": 0.25, "updates": 6}
CANDIDATES = (0.5, 0.25, 40, "l2", "linear", "*.x.*", {"*.x.*": 0.5})  # for a field of any type one of them fits


def another_value(name: str) -> object:
    """A value for a field other than its own in BASE; None if there is no other."""
    parts = [part for part in Recipe.model_fields[name].metadata if isinstance(part, Choices)]
    own = getattr(Recipe(steps=1000, **BASE), name)
    for value in (*(choice for part in parts for choice in part.names()), *CANDIDATES):
        try:
            if getattr(Recipe(steps=1000, **BASE | {name: value}), name) != own:
                return value
        except EvergraftError:
            pass
    return None


def test_every_field_has_one_meaning():
    groups = (
        (facts.MODEL, facts.SEED), facts.TEXT, facts.STEPS, facts.SPARSITY, facts.EVOLUTION, facts.TUNING,
        facts.COMPUTATION, facts.CONDITIONS,
    )  # fmt: skip
    assert sorted(name for group in groups for name in group) == sorted(Recipe.model_fields)


@pytest.mark.parametrize("name", [*facts.SPARSITY, *facts.EVOLUTION])
def test_a_field_of_the_settings_tells_configurations_apart(record, configurations, name):
    assert name in SparsityConfig.model_fields or name in EvolutionConfig.model_fields
    value = another_value(name)
    if value is None:
        pytest.skip(f"{name} can have one value alone")
    one, other = configurations([record(3.0, **BASE), record(3.1, **BASE | {name: value})])
    assert one.label != other.label
    assert compared_facts(one)[name] != compared_facts(other)[name]


@pytest.mark.parametrize("name", sorted({*facts.EVOLUTION} - {"group_lasso"}))
def test_how_a_topology_would_evolve_does_not_matter_to_a_static_run(record, name):
    """Group Lasso does: it acts on the weights of static runs too."""
    value = another_value(name)
    if value is None:
        pytest.skip(f"{name} can have one value alone")
    assert record(3.0, **BASE | {name: value}).static_setting == record(3.0, **BASE).static_setting


NEW_FIELDS = """
from pathlib import Path
from pydantic import Field
from evergraft.evolution import config as evolution
from evergraft.sparse import config as sparse

class NewEvolution(evolution.EvolutionConfig):
    novelty: float = Field(0.0, description="a new setting")

class NewSparsity(sparse.SparsityConfig):
    shape: str = Field("square", description="another")

evolution.EvolutionConfig, sparse.SparsityConfig = NewEvolution, NewSparsity
import sys
from evergraft.study.collection import gather
from evergraft.study.comparison import comparisons
from evergraft.study.csv_files import runs_csv
from evergraft.study.collection import Collection
from evergraft.study.grid import load_study
from tests.study.records import make_record

path = Path(sys.argv[1])
path.write_text("title: T\\nbase: {steps: 100}\\ngrid: {novelty: [0.0, 0.5], shape: [square, round]}\\n")
print(*(run.name for run in load_study(path).runs))
records = [make_record(3.0, novelty=novelty, shape=shape, density=0.1, block=block)
           for novelty in (0.0, 0.5) for shape in ("square", "round") for block in ("1x1", "16x16")]
configurations = gather(records)
print(*(one.label for one in configurations), sep="; ")
print(*(one.shared for one in comparisons(configurations)[:4]), sep="; ")
print(runs_csv(Collection("", "", configurations)).partition("\\n")[0])
"""


def test_a_new_setting_needs_no_change_in_a_study(tmp_path):
    """In a process of its own, where the settings' records have a field more."""
    command = [sys.executable, "-c", NEW_FIELDS, str(tmp_path / "study.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    names, labels, shared, columns = done.stdout.splitlines()
    assert "novelty0.5-s0" in names
    assert "shaperound" in names
    assert labels.startswith("dynamic 1x1 shape square novelty 0.0; dynamic 16x16 shape square novelty 0.0; ")
    assert shared == "; ".join(
        f"shape {shape}, novelty {novelty}" for novelty in ("0.0", "0.5") for shape in ("square", "round")
    )
    assert {"novelty", "shape"} <= set(columns.split(","))
