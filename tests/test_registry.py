"""Rules and backends by name: built in, registered by a script, and offered by another installed package."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from evergraft import EvergraftError
from evergraft.evolution.growth import GROWTH_RULES
from evergraft.registry import Registry
from evergraft.sparse.allocation import ALLOCATIONS
from evergraft.sparse.initialisation import INITIALISATIONS
from evergraft.sparse.placement import PLACEMENTS
from evergraft.sparse.products import BACKENDS
from tests.conftest import names

OUTSIDE = '''
"""A package that knows evergraft, and that evergraft does not know."""
import torch
from evergraft.evolution.inactive import inactive_positions
from evergraft.sparse.products import dense

def oldest(context):
    return torch.arange(context.count)

def first(context):
    return inactive_positions(context.topology, torch.arange(context.count))

def by_row(layers):
    return {name: [2] * grid.rows for name, grid in layers.items()}

def leftmost(rows, columns, count, rng):
    return torch.cat([row * columns + torch.arange(held) for row, held in enumerate(count)])

def constant(values, topology, std, generator):
    values.fill_(std)

class Slow:
    name = "slow"
    supports = staticmethod(dense.supports)
    forward = staticmethod(dense.forward)
    input_gradient = staticmethod(dense.input_gradient)
    weight_gradient = staticmethod(dense.weight_gradient)

slow = Slow()
'''
ENTRY_POINTS = """
[evergraft.pruning]
oldest = outside:oldest
[evergraft.growth]
first = outside:first
broken = outside:nothing
[evergraft.allocation]
by-row = outside:by_row
[evergraft.placement]
leftmost = outside:leftmost
[evergraft.initialisation]
constant = outside:constant
[evergraft.backends]
slow = outside:slow
"""
CHOICES = {
    "prune_by": "oldest", "grow_by": "first", "allocation": "by-row", "placement": "leftmost",
    "initialisation": "constant", "backend": "slow",
}  # fmt: skip


@pytest.fixture(scope="module")
def outside(tmp_path_factory) -> dict[str, str]:
    """An environment in which another package is installed that offers one rule of each kind."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "outside.py").write_text(OUTSIDE)
    metadata = folder / "outside-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    return os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200"}


def evergraft(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "evergraft", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_one_of_each_kind_from_another_package_is_a_flag_a_key_and_a_column(outside, small_recipe, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(small_recipe(steps=8, updates=2, block=(4, 4)).to_yaml())
    flags = [part for name, choice in CHOICES.items() for part in (f"--{name.replace('_', '-')}", choice)]
    ended = evergraft(outside, "pretrain", "--recipe", recipe, *flags, "--output", tmp_path / "run", "--json")
    assert ended.returncode == 0, ended.stderr
    lines = (tmp_path / "run" / "recipe.yaml").read_text().splitlines()
    assert all(f"{name}: {choice}" in lines for name, choice in CHOICES.items())
    assert json.loads(ended.stdout)["density"] == 7 / 32  # two blocks in each row of 8, and of 16 in one layer of six
    table = evergraft(outside, "report", tmp_path / "run", "--format", "csv").stdout.splitlines()
    row = dict(zip(table[0].split(","), table[1].split(","), strict=False))
    assert {name: row[name] for name in CHOICES} == CHOICES
    help_text = evergraft(outside, "pretrain", "--help").stdout
    assert all(choice in help_text for choice in CHOICES.values())


def test_a_study_goes_over_rules_of_another_package(outside, small_recipe, tmp_path):
    base = {name: value for name, value in small_recipe(steps=8, updates=2).to_dict().items() if name != "seed"}
    study = {"title": "Growth", "seeds": [0], "base": base, "grid": [{"grow_by": ["random", "first"]}]}
    path = tmp_path / "growth.yaml"
    path.write_text(json.dumps(study | {"output": str(tmp_path / "runs")}))
    status = json.loads(evergraft(outside, "study", "status", path, "--json").stdout)
    assert len(status["waiting"]) == 2
    assert any("first" in name for name in status["waiting"])


def test_without_that_package_its_names_are_unknown(run, small_recipe, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(small_recipe(steps=8, updates=2).to_yaml())
    code, _, err = run("pretrain", "--recipe", recipe, "--grow-by", "first")
    assert code == 2
    assert f"--grow-by: no growth rule is called 'first'; choose one of {names(GROWTH_RULES)}" in err


def test_a_rule_that_cannot_be_loaded_is_one_sentence(outside, small_recipe, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(small_recipe(steps=8, updates=2).to_yaml())
    ended = evergraft(outside, "pretrain", "--recipe", recipe, "--grow-by", "broken", "--output", tmp_path / "run")
    assert ended.returncode == 2
    assert "growth rule 'broken' of outside:nothing cannot be loaded (AttributeError" in ended.stderr
    assert not (tmp_path / "run").exists()


def test_built_in_names_are_the_files_of_a_package():
    assert "random" in GROWTH_RULES.names()
    assert "uniform" in ALLOCATIONS.names()
    assert "normal" in INITIALISATIONS.names()
    assert {"cpu", "dense", "gpu"} <= set(BACKENDS.names())
    assert "balanced" in PLACEMENTS.names()
    for registry in (GROWTH_RULES, ALLOCATIONS, PLACEMENTS, INITIALISATIONS):
        assert all(callable(registry.get(name)) for name in registry.names())


def test_register_and_unregister():
    registry: Registry[object] = Registry("growth rule", "evergraft.nothing", "evergraft.evolution.growth")
    built_in = registry.names()
    function = registry.register("mine")(lambda context: context)
    assert registry.get("mine") is function
    assert registry.names() == [*built_in, "mine"]
    registry.unregister("mine")
    with pytest.raises(EvergraftError, match=f"no growth rule is called 'mine'; choose one of {', '.join(built_in)}$"):
        registry.get("mine")
    with pytest.raises(EvergraftError, match="no growth rule was registered as 'mine'"):
        registry.unregister("mine")
    with pytest.raises(EvergraftError, match="growth rule 'random' is built in"):
        registry.register("random")


@pytest.mark.parametrize("name", ["", " ", None, 3])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(EvergraftError, match="a growth rule needs a name, a text that is not empty"):
        GROWTH_RULES.register(name)


def test_what_is_no_rule_is_refused():
    with pytest.raises(EvergraftError, match=r"growth rule 'mine' is 7, which lacks __call__"):
        GROWTH_RULES.register("mine")(7)
    with pytest.raises(EvergraftError, match=r"backend 'mine' is .*, which lacks name, supports, forward"):
        BACKENDS.register("mine")(object())
    with pytest.raises(EvergraftError, match="'auto' can be no backend's name"):
        BACKENDS.register("auto")
    assert "mine" not in [*GROWTH_RULES.names(), *BACKENDS.names()]
