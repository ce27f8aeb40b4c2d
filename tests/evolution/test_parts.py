"""Schedule, prune, grow, exploration and Group Lasso, each against a plain reference."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evergraft import BlockTopology, EvergraftError, SparseLinear
from evergraft.evolution import UpdateSchedule, apply_group_lasso
from evergraft.evolution.exploration import Exploration
from evergraft.evolution.grow import grow
from evergraft.evolution.prune import block_norms, check_prune_by, prune


@given(st.integers(1, 200), st.integers(2, 20))
def test_all_updates_fall_due_evenly_spaced_and_none_at_the_ends(updates, spacing):
    steps = updates * spacing
    schedule = UpdateSchedule(updates)
    due = [schedule.due(step / steps) for step in range(steps + 1)]
    when = [step for step in range(1, steps + 1) if due[step] > due[step - 1]]
    assert due[0] == 0
    assert due[-1] == updates
    assert len(when) == updates
    assert when[-1] < steps
    assert {b - a for a, b in pairwise(when)} <= {spacing}


def test_static_is_never_due():
    assert UpdateSchedule(0).due(1.0) == 0


def test_ratios_are_those_of_the_paper():
    cosine = UpdateSchedule(10, 0.5)
    assert [cosine.ratio(p) for p in (0, 0.5, 1)] == pytest.approx([0.5, 0.25, 0])
    assert cosine.ratio(0.25) == pytest.approx(0.25 * (1 + math.cos(math.pi / 4)))
    assert [UpdateSchedule(10, 0.5, "linear").ratio(p) for p in (0, 0.5, 1)] == pytest.approx([0.5, 0.25, 0])
    assert UpdateSchedule(10, 0.5, "constant").ratio(1) == 0.5


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"updates": -1}, "updates must be 0"),
        ({"prune_ratio": 1.1}, r"prune_ratio must lie in \[0, 1\]"),
        ({"decay": "slow"}, "decay must be one of cosine, linear, constant"),
    ],
)
def test_schedule_refuses(settings, says):
    with pytest.raises(EvergraftError, match=says):
        UpdateSchedule(**settings)


@given(st.integers(1, 40), st.sampled_from(["l1", "l2", "linf"]), st.integers(0, 99), st.data())
def test_prune_takes_the_smallest_norms_ties_by_slot(active, by, seed, data):
    values = torch.randint(-3, 4, (active, 2, 2), generator=torch.Generator().manual_seed(seed)).double()
    count = data.draw(st.integers(0, active))
    norm = {
        "l1": lambda b: sum(map(abs, b)),
        "l2": lambda b: sum(v * v for v in b) ** 0.5,
        "linf": lambda b: max(map(abs, b)),
    }
    norms = [norm[by](block) for block in values.flatten(1).tolist()]
    expected = sorted(range(active), key=lambda slot: (norms[slot], slot))[:count]
    assert prune(values, count, by, np.random.default_rng(0)).tolist() == expected


def test_prune_at_random_is_by_the_generator():
    values = torch.ones(50, 1, 1)
    first, same = (prune(values, 10, "random", np.random.default_rng(1)) for _ in range(2))
    assert torch.equal(first, same)
    assert len(set(first.tolist())) == 10


def test_norms_of_half_precision_are_exact_enough():
    values = torch.full((1, 64, 64), 0.01, dtype=torch.bfloat16)
    assert block_norms(values, "l1").dtype == torch.float32
    assert block_norms(values, "l1").item() == pytest.approx(4096 * float(values[0, 0, 0]), rel=1e-5)


def test_unknown_criterion_refused():
    with pytest.raises(EvergraftError, match="prune_by must be one of l1, l2, linf, random"):
        check_prune_by("l3")


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0.05, 0.95), st.integers(0, 999), st.data())
def test_grow_picks_distinct_inactive_positions(rows, columns, density, seed, data):
    topology = BlockTopology.random(rows, columns, (1, 1), density, np.random.default_rng(seed))
    inactive = set(range(rows * columns)) - set(topology.positions.tolist())
    count = data.draw(st.integers(0, len(inactive)))
    grown = grow(topology, count, np.random.default_rng(seed)).tolist()
    assert len(set(grown)) == count
    assert set(grown) <= inactive


def test_growth_is_uniform():
    """Chi-square of how often each of 30 inactive positions grows in 4000 draws of 5."""
    topology = BlockTopology.random(6, 10, (1, 1), 0.5, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    drawn = np.concatenate([grow(topology, 5, rng).numpy() for _ in range(4000)])
    counts = np.bincount(drawn, minlength=60)
    counts = counts[[p for p in range(60) if p not in set(topology.positions.tolist())]]
    expected = 4000 * 5 / 30
    assert ((counts - expected) ** 2 / expected).sum() < 58.3  # 29 degrees of freedom, p = 0.001


@given(st.integers(0, 999))
def test_exploration_against_sets(seed):
    rng = np.random.default_rng(seed)
    topology = BlockTopology.random(5, 9, (1, 1), 0.3, rng)
    history, seen, newest = Exploration(topology), set(topology.positions.tolist()), set()
    all_grown = all_removed = 0
    for _ in range(4):
        count = int(rng.integers(0, 6))
        slots = torch.from_numpy(rng.permutation(topology.active)[:count])
        pruned, grown = topology.positions[slots], grow(topology, count, rng)
        topology, _ = topology.replace(slots, grown)
        assert history.record(pruned, grown) == (len(newest), len(newest & set(pruned.tolist())))
        all_grown += len(newest)
        all_removed += len(newest & set(pruned.tolist()))
        newest = set(grown.tolist())
        seen |= newest
    assert history.explored == len(seen) / 45
    assert (history.grown, history.removed_new) == (all_grown, all_removed)


def test_group_lasso_is_the_formula():
    layer = SparseLinear.random(8, 8, 0.5, (2, 4)).double()
    before = layer.values.detach().clone()
    apply_group_lasso([layer], learning_rate=0.1, strength=3.0)
    for block, was in zip(layer.values.tolist(), before.tolist(), strict=True):
        norm = math.sqrt(sum(w * w for row in was for w in row))
        for row, row_was in zip(block, was, strict=True):
            for got, w in zip(row, row_was, strict=True):
                assert got == pytest.approx(w - 0.1 * 3.0 * 0.02 * math.sqrt(8) * w / (norm + 1e-6), rel=1e-12)
