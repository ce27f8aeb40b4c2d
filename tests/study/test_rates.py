"""Learning rates beside the paper's formula."""

from __future__ import annotations

import pytest

from evergraft.study.rates import sweeps
from evergraft.study.tables.learning_rates import learning_rates


def test_learning_rates_beside_the_formula(seeds, collection):
    runs = [
        run
        for density, losses in {1: (3.1, 3.0, 3.2), 0.1: (3.3, 3.2, 3.3), 0.5: (3.5, 3.4, 3.3)}.items()
        for rate, loss in zip((1e-3, 2e-3, 4e-3), losses, strict=True)
        for run in seeds(loss, density=density, updates=0, learning_rate=rate * (4 if density < 0.5 else 1))
    ]
    dense, sparse, edge = learning_rates(collection(*runs)).rows
    assert dense[2:5] == ("0.002", "3.0000 ± 0.0248", "0.001: 0.1000 ± 0.0000, 0.004: 0.2000 ± 0.0000")
    assert dense[5:] == ("0.00178 ± 0.00000", "-", "1.00")  # a parabola through 1, 0, 2: 1/6 octave below
    assert sparse[5:] == ("0.00800 ± 0.00000", "4.49 ± 0.00", "6.40")  # exp(1.969 0.81 + 0.2905 0.9)
    assert (edge[2], *edge[5:]) == ("0.004 (at the edge)", "-", "-", "1.89")
    assert edge[4] == "0.001: 0.2000 ± 0.0000, 0.002: 0.1000 ± 0.0000"


def test_an_optimum_needs_every_seed_to_have_one(record, configurations):
    def sweep(*middle):
        losses = {1e-3: (3.0, 3.0), 2e-3: middle, 4e-3: (3.0, 3.0)}
        runs = [
            record(loss, learning_rate=rate, seed=seed)
            for rate, both in losses.items()
            for seed, loss in enumerate(both)
        ]
        return sweeps(configurations([*runs, record(2.0, learning_rate=5e-3, updates=7)]))  # of other updates: apart

    (found,) = sweep(2.8, 2.9)
    assert found.optima == {0: pytest.approx(2e-3), 1: pytest.approx(2e-3)}
    (found,) = sweep(2.8, 3.1)  # the second seed's parabola is the wrong way round
    assert (found.at_edge, found.optima, found.over_dense) == (False, {}, None)


def test_an_optimum_is_not_extrapolated(record, configurations):
    """A seed whose losses are nearly on a line has its lowest point anywhere."""
    losses = {1e-3: (3.0, 3.0), 2e-3: (2.0, 2.9), 4e-3: (3.0, 2.8 + 1e-9)}
    runs = [
        record(loss, learning_rate=rate, seed=seed) for rate, both in losses.items() for seed, loss in enumerate(both)
    ]
    (found,) = sweeps(configurations(runs))
    assert (found.at_edge, found.optima) == (False, {})
