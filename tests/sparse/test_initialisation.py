"""First values: their deviation, by rule."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from evergraft import BlockTopology
from evergraft.sparse.initialisation import INITIALISATIONS

TRUNCATED = 0.8796  # the standard deviation of a normal cut off at two of its own


@pytest.mark.parametrize(
    ("name", "density", "factor"), [("normal", 0.1, 1), ("fan_in", 0.1, math.sqrt(10)), ("fan_in", 0.25, 2)]
)
def test_the_deviation(name, density, factor):
    topology = BlockTopology.random(1024, 512, (4, 4), density, np.random.default_rng(0))
    values = torch.empty(topology.active, 4, 4)
    INITIALISATIONS.get(name)(values, topology, 0.02, torch.Generator().manual_seed(1))
    assert values.std().item() == pytest.approx(0.02 * factor * TRUNCATED, rel=0.01)
    assert values.abs().max() <= 0.02 * factor * 2.001


def test_with_fan_in_a_sparse_layer_begins_with_the_outputs_of_a_dense_one():
    topology = BlockTopology.random(1024, 512, (1, 1), 0.1, np.random.default_rng(0))
    values = torch.empty(topology.active, 1, 1)
    INITIALISATIONS.get("fan_in")(values, topology, 0.02, torch.Generator().manual_seed(1))
    weight = torch.zeros(topology.blocks).index_put_((topology.positions,), values.flatten()).view(1024, 512)
    x = torch.randn(64, 512, generator=torch.Generator().manual_seed(2))
    assert (x @ weight.t()).std().item() == pytest.approx(0.02 * TRUNCATED * math.sqrt(512), rel=0.03)
