"""The record of how a model is sparse: JSON in and out, patterns, overrides, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evergraft import ALLOCATIONS, INITIALISATIONS, EvergraftError, Recipe, SparsityConfig
from tests.conftest import names

Blocks = st.tuples(st.integers(1, 64), st.integers(1, 64))
Densities = st.floats(0.001, 1)


@given(Densities, Blocks, st.dictionaries(st.text("ab.*", min_size=1), Densities | Blocks.map("{0[0]}x{0[1]}".format)))
def test_json_in_and_out(density, block, overrides):
    config = SparsityConfig(density=density, block=block, overrides=overrides)
    assert SparsityConfig(**json.loads(json.dumps(config.to_dict()))) == config


def test_overrides_by_pattern_the_last_that_matches_counts():
    config = SparsityConfig(
        density=0.1, block="16x16", overrides={"*.attention.*": 0.2, "*.query": "16x1", "*.down": "0.3,4x4"}
    )
    assert config.of_layer("layer.0.up") == (0.1, (16, 16))
    assert config.of_layer("layer.0.attention.value") == (0.2, (16, 16))
    assert config.of_layer("layer.0.attention.query") == (0.2, (16, 1))
    assert config.of_layer("layer.0.down") == (0.3, (4, 4))


def test_overrides_as_flags_give_them():
    assert SparsityConfig(overrides="*.query=0.2") == SparsityConfig(overrides={"*.query": 0.2})
    given = SparsityConfig(overrides=["*.query=0.2", "*.down=0.3,4x4"])
    assert given == SparsityConfig(overrides={"*.query": {"density": 0.2}, "*.down": {"density": 0.3, "block": "4x4"}})


def test_selection_by_name():
    config = SparsityConfig(include="*.attention.*", exclude=["*.key"])
    assert config.selects("layer.0.attention.query")
    assert not config.selects("layer.0.attention.key")
    assert not config.selects("layer.0.up")


def test_the_order_of_overrides_is_kept_and_tells_records_apart():
    """Transformers sorts the keys of a config.json, so that order must not lie in them."""
    config = SparsityConfig(overrides={"*.query": 0.3, "*": "0.5,16x1"})
    assert config.to_dict()["overrides"] == ["*.query=0.3", "*=0.5,16x1"]
    again = SparsityConfig(**json.loads(json.dumps(config.to_dict(), sort_keys=True)))
    assert again.of_layer("layer.0.query") == (0.5, (16, 1))
    assert config != SparsityConfig(overrides={"*": "0.5,16x1", "*.query": 0.3})


def test_a_model_is_dense_unless_some_layer_has_a_lower_density():
    assert SparsityConfig(density=1, overrides={"*.query": "4x4"}).is_dense
    assert not SparsityConfig(density=1, overrides={"*.query": 0.5}).is_dense
    assert not SparsityConfig(density=0.1).is_dense


def test_a_deviation():
    assert SparsityConfig(initial_std=0.1).std == 0.1
    assert SparsityConfig().std == 0.02


def test_numbers_of_numpy_and_torch_are_numbers():
    config = SparsityConfig(
        density=np.float32(0.5),
        block=(np.int64(4), torch.tensor(2)),
        seed=np.uint8(7),
        overrides={"*": np.float64(0.2)},
    )
    assert config == SparsityConfig(density=0.5, block="4x2", seed=7, overrides={"*": 0.2})


def test_a_copy_with_other_values_is_checked():
    config = SparsityConfig(density=0.2, overrides={"*.query": 0.3})
    assert config.replace(block="4x4") == SparsityConfig(density=0.2, block="4x4", overrides={"*.query": 0.3})
    with pytest.raises(EvergraftError, match="`density`: Input should be greater than 0"):
        config.replace(density=0)
    with pytest.raises(EvergraftError, match=r"give the record alone, or config.replace\(block=\.\.\.\)"):
        SparsityConfig.of(config, block="4x4")
    with pytest.raises(
        EvergraftError, match=r"expected SparsityConfig\(...\), or its fields as keywords; got a Recipe"
    ):
        SparsityConfig.of(Recipe(steps=10))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"density": 0}, "`density`: Input should be greater than 0; got 0"),
        ({"density": float("nan")}, "`density`: Input should be a finite number"),
        ({"block": "16by1"}, "`block`: block must be ROWSxCOLUMNS"),
        ({"block": (0, 4)}, "`block`: block must be ROWSxCOLUMNS"),
        ({"allocation": "fair"}, f"`allocation`: no allocation is called 'fair'; choose one of {names(ALLOCATIONS)}"),
        (
            {"initialisation": "warm"},
            f"`initialisation`: no initialisation is called 'warm'; choose one of {names(INITIALISATIONS)}",
        ),
        ({"backend": "quick"}, "`backend`: no backend is called 'quick'; choose one of auto"),
        ({"overrides": {"*": 7}}, "`density`: Input should be less than or equal to 1; got 7"),
        ({"overrides": ["*.query"]}, "an override is PATTERN=DENSITY, as in '*.attention.*=0.2'; got '*.query'"),
        ({"overrides": {"*": "0.1,0.2"}}, "an override is a density, a block, or both"),
        ({"overrides": {"*": {}}}, "an override is a density, a block, or both"),
        ({"overrides": {"*": {1: 2}}}, "`1`: no such field; Override has density, block"),
        ({"overrides": {"*": [0.1]}}, "`density`: Input should be a valid number; got [0.1]"),
        ({"overrides": {3: 0.1}}, "an override is PATTERN=DENSITY, as in '*.attention.*=0.2'; got (3, 0.1)"),
        ({"overrides": 0.1}, "overrides are PATTERN=DENSITY, as in '*.attention.*=0.2'; got 0.1"),
        ({"density": True}, "`density`: expected another value than true or false; got true"),
        ({"block": (True, 4)}, "`block`: block must be ROWSxCOLUMNS"),
        ({"densty": 0.1}, "`densty`: no such field; SparsityConfig has density, block"),
    ],
)
def test_refusals_are_one_sentence(settings, says):
    with pytest.raises(EvergraftError) as refused:
        SparsityConfig(**settings)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_settings_need_no_torch():
    code = (
        "import sys; from evergraft import SparsityConfig, EvolutionConfig, Recipe; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
