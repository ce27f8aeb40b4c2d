"""The record of how a model is sparse: JSON in and out, patterns, overrides, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergraft import EvergraftError, SparsityConfig

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
    given = SparsityConfig(overrides=["*.query=0.2", "*.down=0.3,4x4"])
    assert given == SparsityConfig(overrides={"*.query": {"density": 0.2}, "*.down": {"density": 0.3, "block": "4x4"}})


def test_selection_by_name():
    config = SparsityConfig(include="*.attention.*", exclude=["*.key"])
    assert config.selects("layer.0.attention.query")
    assert not config.selects("layer.0.attention.key")
    assert not config.selects("layer.0.up")


def test_a_deviation_by_either_name():
    assert SparsityConfig(std=0.1).std == SparsityConfig(initial_std=0.1).std == 0.1
    assert SparsityConfig().std == 0.02


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"density": 0}, "`density`: Input should be greater than 0; got 0"),
        ({"density": float("nan")}, "`density`: Input should be a finite number"),
        ({"block": "16by1"}, "`block`: block must be ROWSxCOLUMNS"),
        ({"block": (0, 4)}, "`block`: block must be ROWSxCOLUMNS"),
        ({"allocation": "fair"}, "`allocation`: no allocation is called 'fair'; choose one of uniform"),
        ({"initialisation": "warm"}, "`initialisation`: no initialisation is called 'warm'; choose one of normal"),
        ({"backend": "quick"}, "`backend`: no backend is called 'quick'; choose one of auto"),
        ({"overrides": {"*": 7}}, "`density`: Input should be less than or equal to 1; got 7"),
        ({"overrides": ["*.query"]}, "an override is PATTERN=DENSITY, as in '*.attention.*=0.2'; got '*.query'"),
        ({"overrides": {"*": "0.1,0.2"}}, "an override is a density, a block, or both"),
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
