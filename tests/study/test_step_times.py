"""Steps timed alone: which of a file's results count, and what a run takes by them."""

from __future__ import annotations

import json

import pytest

from evergraft.errors import EvergraftError
from evergraft.study.step_times import FASTEST, StepTimes

MACHINE = {"commit": "b", "processor": "P", "cpu_capability": "AVX2", "gpu": None}
SHAPE = {"batch_size": 32, "sequence_length": 128, "threads": 1}


def timed(model="tiny", precision="fp32", seconds=0.5, density=0.1, block="16x1", machine=MACHINE, **rivals):
    """A result of `bench step`; rivals by name, with `_` for the blank before the precision."""
    named = {name.replace("_", " "): {"seconds": its} for name, its in rivals.items()}
    update = {"seconds": 7.0, "steps": 14.0}
    figures = {"block": block, "density": density, "seconds": seconds, "rivals": named, "topology_update": update}
    return {"model": model, "precision": precision, "machine": machine, **SHAPE, **figures}


@pytest.fixture
def times(tmp_path):
    """The function from results of a bench to what is read of them."""

    def read(*results):
        file = tmp_path / "step.json"
        file.write_text(json.dumps(results))
        return StepTimes.read(file)

    return read


LEAN = {"lean dense_fp32": 2.0, "lean dense (oneDNN)_fp32": 1.5, "lean dense_bf16": 1.0, "stock transformers_fp32": 0.1}


def test_a_dense_run_takes_a_rivals_steps(times, record):
    found = times(timed(**LEAN))
    run = record(3.0, model="tiny", density=1)
    assert found.rivals == ("lean dense fp32", "lean dense (oneDNN) fp32", "lean dense bf16")
    assert [found.seconds(run, rival) for rival in (*found.rivals, FASTEST)] == [2000, 1500, 1000, 1000]


def test_a_sparse_run_takes_its_own_steps_and_updates(times, record):
    found = times(timed(**LEAN), timed(precision="bf16", seconds=0.25, **LEAN))
    run = record(3.0, model="tiny", density=0.1, block="16x1", updates=4)
    assert [found.seconds(run, rival) for rival in (*found.rivals, FASTEST)] == [528, 528, 278, 278]


@pytest.mark.parametrize(
    "other",
    [{"model": "mini"}, {"density": 0.2}, {"block": "1x1"}, {"batch_size": 16}, {"sequence_length": 64}],
    ids=str,
)
def test_only_steps_like_the_runs_own_count(times, record, other):
    run = record(3.0, **{"model": "tiny", "density": 0.1, "block": "16x1", **other})
    assert times(timed(**LEAN)).seconds(run, "lean dense fp32") is None


def test_the_fastest_of_the_newest_commit_counts(times, record):
    old = MACHINE | {"commit": "a"}
    found = times(timed(seconds=0.01, machine=old), timed(seconds=0.5), timed(seconds=0.4), timed("mini", machine=old))
    run = record(3.0, model="tiny", density=0.1, block="16x1", updates=0)
    assert found.seconds(run, FASTEST) == 400
    assert {step.model for step in found.steps} == {"tiny", "mini"}


def test_results_of_several_blocks(times, record):
    one, other = timed(block="1x1"), timed(block="4x4", seconds=0.25)
    result = {**{name: one[name] for name in ("model", "precision", "machine", *SHAPE)}, "results": [one, other]}
    run = record(3.0, model="tiny", density=0.1, block="4x4", updates=0)
    assert times(result).seconds(run, FASTEST) == 250


def test_machines_are_not_mixed(times):
    with pytest.raises(EvergraftError, match=r"steps of 2 machines.*P \(AVX2\), 1 threads; Q \(AVX2\), 1 threads"):
        times(timed(), timed("mini", machine=MACHINE | {"processor": "Q"}))


@pytest.mark.parametrize("results", [[], [{}], [{"bench": "products"}], [timed() | {"density": None}], ["x"]], ids=str)
def test_other_files_are_refused(times, results):
    with pytest.raises(EvergraftError, match="holds no results of `evergraft bench step`, or a torn one"):
        times(*results)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(EvergraftError, match=r"there is no file .*none\.json; write one with: evergraft bench step"):
        StepTimes.read(tmp_path / "none.json")
