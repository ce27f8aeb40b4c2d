"""The record of how topologies evolve: JSON in and out, loose fields, and what it refuses."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergraft import (
    GROWTH_RULES,
    PRUNING_RULES,
    EvergraftError,
    EvolutionConfig,
    SparsityConfig,
    TopologyCallback,
)
from tests.conftest import names


@given(st.integers(0, 1000), st.floats(0, 1), st.sampled_from(["cosine", "linear", "constant"]), st.floats(0.01, 1))
def test_json_in_and_out(updates, ratio, decay, until):
    config = EvolutionConfig(updates=updates, prune_ratio=ratio, prune_decay=decay, update_until=until)
    assert EvolutionConfig(**json.loads(json.dumps(config.to_dict()))) == config


def test_keywords_of_version_0_1_0():
    assert TopologyCallback(decay="linear").config == EvolutionConfig(prune_decay="linear")


@pytest.mark.parametrize(("updates", "until", "most"), [(5, 1.0, 5), (5, 0.8, 4), (5, 0.05, 0)])
def test_updates_have_two_steps_each_within_their_part_of_the_run(updates, until, most):
    config = EvolutionConfig(updates=updates, update_until=until)
    assert config.most_updates(10) == most
    if most < updates:
        with pytest.raises(EvergraftError, match=rf"5 updates in 10 steps up to {until} of the run .* at most {most},"):
            config.check_fits(10)
    config.replace(updates=most).check_fits(10)
    with pytest.raises(EvergraftError, match="a run has at least one step; got 0"):
        config.check_fits(0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"updates": -1}, "`updates`: Input should be greater than or equal to 0; got -1"),
        ({"prune_ratio": 1.1}, "`prune_ratio`: Input should be less than or equal to 1; got 1.1"),
        ({"prune_decay": "slow"}, "Input should be 'cosine', 'linear' or 'constant'; got 'slow'"),
        ({"prune_by": "l3"}, f"`prune_by`: no pruning rule is called 'l3'; choose one of {names(PRUNING_RULES)}"),
        ({"grow_by": "hope"}, f"`grow_by`: no growth rule is called 'hope'; choose one of {names(GROWTH_RULES)}"),
        ({"update_until": 0}, "`update_until`: Input should be greater than 0"),
        ({"update_ratio": 0.5}, "`update_ratio`: no such field; EvolutionConfig has updates, prune_ratio"),
        ({"seed": -1}, "`seed`: Input should be greater than or equal to 0"),
    ],
)
def test_refusals_are_one_sentence(settings, says):
    with pytest.raises(EvergraftError) as refused:
        EvolutionConfig(**settings)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_record_or_its_fields_but_not_both():
    config = EvolutionConfig(updates=3)
    assert TopologyCallback(config).config is config
    assert TopologyCallback(updates=3).config == config
    with pytest.raises(EvergraftError, match="updates given beside EvolutionConfig"):
        TopologyCallback(config, updates=4)
    with pytest.raises(EvergraftError, match="expected EvolutionConfig"):
        TopologyCallback(SparsityConfig())
