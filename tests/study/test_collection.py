"""Runs gathered by configuration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from evergraft.errors import EvergraftError
from evergraft.study.collection import collect
from evergraft.study.report import to_markdown


def test_configurations_gather_seeds_and_are_named_by_what_differs(seeds, configurations):
    made = configurations(
        [
            *seeds(3.0, density=1),
            *seeds(3.2, density=0.1, updates=0),
            *seeds(3.1, density=0.1, updates=40),
            *seeds(3.1, density=0.1, updates=80),
            *seeds(3.1, density=0.25, block="16x1"),
        ]
    )
    assert [one.label for one in made] == [
        "dense",
        "static d0.1 16x16",
        "dynamic d0.1 16x16 updates 40",
        "dynamic d0.1 16x16 updates 80",
        "dynamic d0.25 16x1",
    ]
    assert made[0].loss.text(3) == "3.000 ± 0.025"
    assert made[0].losses == {0: 2.99, 1: 3.0, 2: 3.01}


def test_two_runs_of_one_recipe_and_seed_are_refused(record, configurations):
    runs = [replace(record(loss, seed=7), folder=Path(name)) for name, loss in (("runs/a", 3.0), ("runs/b", 3.1))]
    with pytest.raises(EvergraftError, match="runs/a and runs/b are runs of one recipe and seed"):
        configurations(runs)


@pytest.mark.parametrize("name", ["corpus_identity", "model_identity"])
def test_runs_on_other_text_or_of_another_file_are_no_seeds_of_one(record, configurations, name):
    runs = [record(loss, seed=seed, density=1) for seed, loss in enumerate((3.0, 4.0))]
    environments = [
        run.environment.model_copy(update={name: identity}) for run, identity in zip(runs, "ab", strict=True)
    ]
    runs = [replace(run, environment=read) for run, read in zip(runs, environments, strict=True)]
    made = configurations(runs)
    kind = name.removesuffix("_identity")
    assert [one.label for one in made] == [f"dense {kind} a", f"dense {kind} b"]
    assert not made[0].trained_like(made[1])


def test_dense_models_have_no_blocks_and_static_ones_no_pruning(record, configurations):
    """So runs that differ in these alone are seeds of one configuration."""
    dense = [record(3.0, density=1, seed=0, block="4x4"), record(3.1, density=1, seed=1, block="8x8")]
    static = [record(3.2, updates=0, seed=seed, prune_by=by) for seed, by in enumerate(("l1", "l2"))]
    assert [one.label for one in configurations([*dense, *static])] == ["dense", "static d0.1"]


def test_collections_name_what_is_missing(finished_study):
    study, _ = finished_study
    collection = collect([study.path])
    assert len(collection.records) == 6
    assert [name for name, _ in collection.unfinished] == [study.runs[3].name, study.runs[7].name]
    assert [one.label for one in collection.configurations] == ["dense", "static d0.25 4x4", "dynamic d0.25 4x4"]
    waiting = replace(collection, unfinished=(("one", "waiting"), ("two", "waiting"), *collection.unfinished[:1]))
    name, reason = collection.unfinished[0]
    assert f"not in the figures: 2 waiting, {name} ({reason})." in to_markdown(waiting)
