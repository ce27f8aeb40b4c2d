"""A study file and the runs it comes to."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from evergraft.errors import EvergraftError
from evergraft.runs.recipe import Recipe
from evergraft.study.grid import family_of, load_study

BASE = {"model": "tiny", "steps": 400}


def write(folder: Path, **fields: object) -> Path:
    path = folder / "study.yaml"
    path.write_text(
        yaml.safe_dump({"title": "A study", "base": BASE, "grid": {"density": 1}, **fields}, sort_keys=False)
    )
    return path


def test_fields_are_crossed_and_seeds_come_last(tmp_path):
    grid = {"density": 0.1, "block": ["1x1", "16x1"], "updates": [0, 40]}
    study = load_study(write(tmp_path, seeds=[1, 2], grid=grid))
    assert [run.recipe.seed for run in study.runs] == [1] * 4 + [2] * 4
    assert [(run.recipe.block, run.recipe.updates) for run in study.runs[:4]] == [
        ((1, 1), 0),
        ((1, 1), 40),
        ((16, 1), 0),
        ((16, 1), 40),
    ]
    assert [run.family for run in study.runs[:2]] == ["static", "dynamic"]
    assert study.runs[1].name == "dynamic-tiny-d0.1-1x1-updates40-s1"
    assert study.runs[1].folder == Path("runs/study/dynamic-tiny-d0.1-1x1-updates40-s1")
    assert len({run.name for run in study.runs}) == 8


def test_zipped_fields_walk_together(tmp_path):
    grid = {"zip": {"model": ["tiny", "mini"], "learning_rate": [2e-3, 1e-3]}, "density": [1, 0.5]}
    runs = load_study(write(tmp_path, grid=grid)).runs
    assert [(run.recipe.model, run.recipe.learning_rate, run.recipe.density) for run in runs] == [
        ("tiny", 2e-3, 1),
        ("tiny", 2e-3, 0.5),
        ("mini", 1e-3, 1),
        ("mini", 1e-3, 0.5),
    ]


def test_several_grids_a_family_and_a_base_in_a_file(tmp_path):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE | {"density": 0.1}))
    grids = [{"density": 1}, {"family": "by l2", "prune_by": "l2"}, {"updates": None}]
    study = load_study(write(tmp_path, base="base.yaml", grid=grids, output=str(tmp_path / "out")))
    assert [run.family for run in study.runs] == ["dense", "by l2", "dynamic"]
    assert study.runs[1].name == "by_l2-tiny-d0.1-16x16-prune_byl2-s0"
    assert study.runs[1].folder.parent == tmp_path / "out"
    assert study.runs[1].recipe_file.name == "by_l2-tiny-d0.1-16x16-prune_byl2-s0.yaml"


def test_a_length_in_the_grid_replaces_the_one_of_the_base(tmp_path):
    (run,) = load_study(write(tmp_path, grid={"tokens": 40960, "density": 1})).runs
    assert (run.recipe.steps, run.recipe.total_steps) == (None, 10)


def test_families():
    assert family_of(Recipe(steps=10, density=1)) == "dense"
    assert family_of(Recipe(steps=10, updates=0)) == "static"
    assert family_of(Recipe(steps=10)) == "dynamic"


BAD = [
    ({"title": None}, "title: Input should be a valid string; got None"),
    ({"grids": {}}, "grids: no such field; a study has title, question, base, seeds, grid, output"),
    ({"grid": []}, "grid: List should have at least 1 item"),
    ({"grid": {"densty": 1}}, "densty: no such field; Recipe has model, corpus"),
    ({"grid": {"density": [1, 7]}}, "density: Input should be less than or equal to 1; got 7"),
    ({"grid": {"updates": 300}}, "300 updates in 400 steps leave less than two steps to each"),
    ({"grid": {"density": [0.5, 0.5]}}, "2 runs would be called dynamic-tiny-d0.5-16x16-s0"),
    ({"grid": {"density": []}}, "density has no values; give it one or more, or leave it out of the grid"),
    ({"grid": [{"density": 1}, {"zip": {"density": []}}]}, "density has no values; give it one or more"),
    ({"grid": {"updates": True}}, "updates: expected another value than true or false; got true"),
    ({"grid": {"block": [[16, True]]}}, "block: block must be ROWSxCOLUMNS"),
    ({"grid": {"seed": [1, 2]}}, "a grid names a seed; list seeds under `seeds`"),
    ({"base": {"seed": 1, "steps": 9}}, "base names a seed; list seeds under `seeds`"),
    ({"base": "missing.yaml"}, "missing.yaml does not exist; expected a YAML file of recipe fields"),
    ({"grid": {"zip": {"density": [1]}, "density": 0.5}}, "density stands in a grid and under its `zip`; keep one"),
    ({"grid": {"family": ["one", "two"]}}, "`family` must be one name; got ['one', 'two']"),
    (
        {"grid": {"density": [1, 0.25], "updates": [0, 2]}},
        "dense-tiny-d1-updates0-s0 and dense-tiny-d1-updates2-s0 would be one run twice",
    ),
    ({"grid": {"density": 0.25, "block": "8x8", "updates": [None, 1]}}, "would be one run twice"),
    ({"grid": {"updates": 0, "prune_by": ["l1", "l2"]}}, "would be one run twice"),
    ({"seeds": []}, "seeds: List should have at least 1 item"),
    ({"seeds": [1, 1]}, "seeds must differ from each other; got [1, 1]"),
    ({"seeds": [-1]}, "seeds: Input should be greater than or equal to 0; got -1"),
    ({"grid": {"zip": ["model"]}}, "`zip` must hold `field: [values]` lines; got ['model']"),
    (
        {"grid": {"zip": {"model": ["tiny"], "density": [1, 0.5]}}},
        "lists under `zip` must be equally long; model has 1, density has 2",
    ),
]


@pytest.mark.parametrize(("fields", "sentence"), BAD, ids=[sentence for _, sentence in BAD])
def test_bad_studies(tmp_path, fields, sentence):
    path = write(tmp_path, **fields)
    with pytest.raises(EvergraftError) as refused:
        load_study(path)
    assert sentence in str(refused.value)
    assert str(tmp_path) in str(refused.value)


def test_a_study_without_a_grid(tmp_path):
    (tmp_path / "study.yaml").write_text("title: A study\n")
    with pytest.raises(EvergraftError, match="grid is missing; a study needs title and grid"):
        load_study(tmp_path / "study.yaml")


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parents[2].glob("studies/**/*.yaml")), ids=lambda path: path.stem
)
def test_studies_of_the_project_are_valid(path):
    assert load_study(path).runs


def test_studies_of_one_output_share_the_runs_that_both_ask_for(tmp_path):
    first = {"density": [0.1, 0.5], "updates": [0, 40], "learning_rate": 1e-3}
    second = {"zip": {"learning_rate": [1e-3, 2e-3]}, "updates": 40, "density": 0.1}
    names = [{run.name: run.recipe for run in load_study(write(tmp_path, grid=grid)).runs} for grid in (first, second)]
    (shared,) = names[0].keys() & names[1].keys()
    assert shared == "dynamic-tiny-d0.1-16x16-updates40-learning_rate0.001-s0"
    assert names[0][shared] == names[1][shared]


def test_a_field_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("title: A study\nbase: {steps: 10}\ngrid:\n  - density: 0.5\n    block: 8x8\n    block: 4x4\n")
    with pytest.raises(EvergraftError, match=r"study .*study.yaml is not YAML: block stands twice in one place"):
        load_study(path)
