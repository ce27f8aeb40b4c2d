"""Where the time of a step goes: that operators are counted for what they do."""

from __future__ import annotations

import json

import pytest
import torch

from evergraft.bench import step
from evergraft.bench.profile import OTHER, PARTS, profile_steps
from evergraft.bench.step import StepBench
from evergraft.errors import EvergraftError


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """As on a processor with products in bf16."""
    config = tmp_path_factory.mktemp("model") / "config.json"
    sizes = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    config.write_text(json.dumps({"model_type": "bert", **sizes}))
    sizes = {"batch_size": 4, "sequence_length": 16, "vocabulary_size": 1021, "blocks": ((4, 4),)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "has_onednn", lambda dtype=torch.float32: True)
        return profile_steps(StepBench(str(config), rounds=1, backend="dense", **sizes))


@pytest.mark.parametrize(("size", "what"), [(64, "tokens of a step"), (128, "hidden size"), (512, "intermediate size")])
def test_a_vocabulary_that_hides_the_head(size, what):
    bench = StepBench("tiny", batch_size=4, sequence_length=16, vocabulary_size=size)
    with pytest.raises(EvergraftError, match=f"`vocabulary_size` {size} equals the {what}"):
        profile_steps(bench)


def test_every_step_and_part(result):
    assert list(result["steps"]) == [
        "stock transformers fp32",
        "stock transformers bf16",
        "lean dense fp32",
        "lean dense bf16",
        "lean dense (oneDNN) fp32",
        "sparse fp32",
    ]
    for figures in result["steps"].values():
        assert list(figures["parts"]) == [*PARTS, OTHER]
        assert figures["seconds"] == pytest.approx(sum(figures["parts"].values()))


@pytest.mark.parametrize("part", PARTS)
def test_parts_are_found(result, part):
    there = {name: figures["parts"][part] > 0 for name, figures in result["steps"].items() if "oneDNN" not in name}
    assert there == {name: part != "sparse products" or name == "sparse fp32" for name in there}
