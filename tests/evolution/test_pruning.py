"""The pruning rules against a plain reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evergraft import BlockTopology
from evergraft.evolution.context import UpdateContext
from evergraft.evolution.pruning import PRUNING_RULES
from evergraft.evolution.pruning._norms import block_norms


def prune(values: torch.Tensor, count: int, by: str, seed: int = 0) -> torch.Tensor:
    active, height, width = values.shape
    rng = np.random.default_rng(seed)
    topology = BlockTopology.random(height, active * width, (height, width), 1.0, rng)
    return PRUNING_RULES.get(by)(UpdateContext("layer", topology, values, count, rng))


def test_the_rules_are_known_by_name():
    assert PRUNING_RULES.names() == ["l1", "l2", "linf", "random"]


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
    assert prune(values, count, by).tolist() == expected


def test_prune_at_random_is_by_the_generator():
    values = torch.ones(50, 1, 1)
    first, same = (prune(values, 10, "random", seed=1) for _ in range(2))
    assert torch.equal(first, same)
    assert len(set(first.tolist())) == 10


def test_norms_of_half_precision_are_exact_enough():
    values = torch.full((1, 64, 64), 0.01, dtype=torch.bfloat16)
    assert block_norms(values, 1).dtype == torch.float32
    assert block_norms(values, 1).item() == pytest.approx(4096 * float(values[0, 0, 0]), rel=1e-5)
