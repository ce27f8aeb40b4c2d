"""What a run leaves in its folder."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml

from evergraft.runs.folder import Run
from evergraft.runs.recipe import Recipe
from tests.training.comparison import metrics

RELEASED = Path(__file__).parents[1] / "released" / "0.1.0"


def test_the_folder(finished):
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "recipe.yaml",
        "environment.json",
        "metrics.jsonl",
        "topology.jsonl",
        "checkpoint-10",
        "checkpoint-20",
        "checkpoint-24",
        "model",
        "tensorboard",
        "result.json",
    }
    files = {path.suffix for path in finished.rglob("*") if path.is_file() and path.parent.name != "tensorboard"}
    assert files <= {".yaml", ".json", ".jsonl", ".safetensors"}  # nothing that needs unpickling
    assert list((finished / "tensorboard").iterdir())
    recipe = Recipe.model_validate(yaml.safe_load((finished / "recipe.yaml").read_text()))
    assert (recipe.steps, recipe.block, recipe.updates, recipe.learning_rate) == (24, (4, 4), 6, 1e-3)
    released = json.loads((RELEASED / "finished" / "environment.json").read_text())
    assert list(json.loads((finished / "environment.json").read_text())) == list(released)


def test_the_result(finished):
    result = Run.open(finished).finished_result
    assert list(result.to_dict()) == list(json.loads((RELEASED / "finished" / "result.json").read_text()))
    assert result.to_dict() == json.loads((finished / "result.json").read_text())
    assert (result.steps, result.tokens) == (24, 24 * 8 * 32)
    assert result.density == 0.25
    assert result.flops_total == 24 * 8 * result.flops_per_sequence
    assert result.bytes.weights < 0.3 * result.bytes_dense.weights
    assert result.validation_mlm_loss < result.untrained_validation_mlm_loss
    assert 0.25 < result.explored <= 1
    assert 0 <= result.removed_new_ratio <= 1


def test_metrics_are_exactly_as_scheduled(finished):
    lines = [line for line in metrics(finished) if "loss" in line]
    assert [line["step"] for line in lines] == [4, 8, 12, 16, 20, 24]
    for line in lines:
        progress = (line["step"] - 1) / 24  # the rate of the step just taken
        factor = progress / 0.1 if progress < 0.1 else (1 - progress) / 0.9
        assert line["learning_rate"] == pytest.approx(1e-3 * factor, rel=1e-12)
        assert line["tokens"] == line["step"] * 256
        assert line["loss"] == pytest.approx(line["mlm_loss"] + line["nsp_loss"])
    validations = [line for line in metrics(finished) if "validation_mlm_loss" in line]
    assert [line["step"] for line in validations] == [0, 24]


def test_topology_log(finished):
    lines = [json.loads(line) for line in (finished / "topology.jsonl").read_text().splitlines()]
    assert sorted({line["step"] for line in lines}) == [2, 6, 10, 14, 18, 22]  # (k + 1/2) 24 / 6
    for number in range(1, 7):
        *update, overall = [line for line in lines if line["update"] == number]
        assert len(update) == 12
        assert overall["layer"] == "all"
        assert overall["pruned"] == overall["grown"] == sum(line["pruned"] for line in update)
        assert overall["explored"] == pytest.approx(  # each layer by its blocks: four 4 x 4 of 8 x 8, two of 16 x 8
            sum(line["explored"] * (2 if active_of(line) == 32 else 1) for line in update) / 16
        )
        assert (overall["removed_new_ratio"] is None) == (number == 1)
        ratio = 0.25 * (1 + math.cos(math.pi * update[0]["step"] / 24))
        for line in update:
            assert line["pruned"] == line["grown"] == round(ratio * active_of(line))


def active_of(line):
    """Active blocks of 4 x 4 at density 0.25 in the line's layer: a feed-forward 64 x 32, or 32 x 32."""
    attention = "attention" in line["layer"]
    return 16 if attention else 32
