"""Fronts and ratios against figures worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergraft.study.pareto import BYTES, COSTS, FLOPS, SECONDS, against_dense, cost_at, front, loss_at

positive = st.floats(0.1, 100)


@given(st.lists(st.tuples(positive, positive), min_size=1))
def test_front_against_the_definition(points):
    beaten = {
        point
        for point in points
        for other in points
        if other != point and other[0] <= point[0] and other[1] <= point[1]
    }
    assert sorted(front(points)) == sorted(set(points) - beaten)


def test_interpolation_is_linear_in_logarithms():
    points = [(1e9, 4.0), (1e11, 1.0)]
    assert cost_at(2.0, points) == pytest.approx(1e10)
    assert cost_at(4.0, points) == pytest.approx(1e9)
    assert cost_at(1.0, points) == pytest.approx(1e11)


def test_nothing_is_extrapolated():
    assert cost_at(5.0, [(1.0, 4.0), (2.0, 3.0)]) is None
    assert cost_at(2.0, [(1.0, 4.0), (2.0, 3.0)]) is None
    assert cost_at(4.0, [(1.0, 4.0)]) is None


@given(st.lists(st.tuples(positive, positive), min_size=2), st.floats(0, 1))
def test_the_loss_at_a_cost_inverts_the_cost_at_a_loss(points, share):
    ends = front(points)
    loss = ends[0][1] ** share * ends[-1][1] ** (1 - share)
    cost = cost_at(loss, points)
    if cost is not None:
        assert loss_at(cost, points) == pytest.approx(loss, rel=1e-6)


def test_no_loss_is_extrapolated():
    points = [(1.0, 4.0), (2.0, 3.0), (3.0, 5.0)]  # the last is beaten by the second
    assert [loss_at(cost, points) for cost in (0.9, 1.0, 2.0, 2.1)] == [None, 4.0, 3.0, None]


def test_differences_at_equal_cost(record, configurations):
    dense = [record(4.0, 1.0, model="tiny", density=1), record(1.0, 100.0, model="mini", density=1)]
    (row,) = against_dense(configurations([*dense, record(1.5, 10.0, density=0.1)]))
    assert row.difference(FLOPS).mean == pytest.approx(-0.5)
    (row,) = against_dense(configurations([*dense, record(1.5, 0.5, density=0.1)]))
    assert row.difference(FLOPS) is None


def test_dense_models_of_any_length_count_where_steps_are_free(record, configurations):
    dense = [record(4.0, 1.0, model="tiny", density=1), record(1.0, 100.0, model="mini", density=1)]
    longer = record(1.5, 2.0, model="tiny", density=1, steps=2000)
    runs = configurations([*dense, longer, record(2.0, 10.0, density=0.1)])
    assert against_dense(runs)[0].ratio(FLOPS).mean == pytest.approx(1)
    assert against_dense(runs, free_steps=True)[0].ratio(FLOPS).mean > 5


@pytest.mark.parametrize("tuned", [{"encoder_rate": 2.0}, {"beta2": 0.98}, {"learning_rate": 3e-3}], ids=str)
def test_the_best_tuned_dense_model_of_a_size_counts(record, configurations, tuned):
    dense = [record(4.1, 1.0, model="tiny", density=1), record(1.0, 100.0, model="mini", density=1)]
    better = record(4.0, 1.0, model="tiny", density=1, **tuned)
    (row,) = against_dense(configurations([*dense, better, record(2.0, 5.0, density=0.1, initialisation="fan_in")]))
    assert row.ratio(FLOPS).mean == pytest.approx(0.5)


def test_a_power_law_family_gives_the_exact_ratio(record, configurations):
    law = lambda cost: 10 * cost**-0.1  # noqa: E731
    sizes = {"tiny": 1e9, "mini": 1e10, "small": 1e11}
    dense = [
        record(law(cost) + 0.01 * seed, cost, model=model, density=1, seed=seed)
        for model, cost in sizes.items()
        for seed in (0, 1, 2)
    ]
    sparse = [record(law(2e10) + 0.01 * seed, 1e10, model="small", density=0.1, seed=seed) for seed in (0, 1, 2)]
    (row,) = against_dense(configurations([*dense, *sparse]))
    ratio = row.ratio(FLOPS)
    assert ratio.mean == pytest.approx(0.5, rel=0.01)  # the offsets of the seeds cancel: each has its own dense family
    assert ratio.low < 0.5 < ratio.high < 0.52
    assert row.critical_cost == pytest.approx(2, rel=0.01)
    assert row.ratio(SECONDS).mean == pytest.approx(ratio.mean)
    assert row.ratio(BYTES).mean == pytest.approx(ratio.mean)


def test_a_loss_outside_the_dense_family_has_no_ratio(record, configurations):
    dense = [record(3.0, 1.0, model="tiny", density=1), record(2.0, 2.0, model="mini", density=1)]
    (row,) = against_dense(configurations([*dense, record(3.5, 1.0, density=0.1)]))
    assert [row.ratio(cost) for cost in COSTS] == [None] * 3
    assert row.critical_cost is None


def test_a_dense_family_are_the_best_of_each_size_trained_for_as_long(record, configurations):
    sizes = {"tiny": (4.0, 1.0), "mini": (1.0, 100.0)}
    dense = [record(*point, model=model, density=1, learning_rate=1e-3) for model, point in sizes.items()]
    others = [
        record(2.0, 1e-3, model="tiny", density=1, steps=10),
        record(2.0, 1e-3, model="tiny", density=1, batch_size=1),
        record(4.1, 1e-3, model="tiny", density=1, learning_rate=2e-3),
    ]
    sparse = record(2.0, 5.0, density=0.1)
    (row,) = against_dense(configurations([*others, *dense, sparse]))
    assert row.ratio(FLOPS).mean == pytest.approx(0.5)
    assert against_dense(configurations([dense[0], *others, sparse])) == []


def test_one_seed_gives_a_ratio_without_an_interval(record, configurations):
    dense = [record(4.0, 1.0, model="tiny", density=1), record(1.0, 100.0, model="mini", density=1)]
    (row,) = against_dense(configurations([*dense, record(2.0, 5.0, density=0.1)]))
    assert row.ratio(FLOPS).mean == pytest.approx(0.5)
    assert row.ratio(FLOPS).low is None
    assert not math.isnan(row.critical_cost)


@pytest.mark.parametrize(
    "other", [{"text": "other"}, {"precision": "bf16"}, {"sequence_length": 64}, {"validation_sequences": 8}], ids=str
)
def test_losses_under_other_conditions_are_not_compared(record, configurations, other):
    dense = [record(4.0, 1.0, model="tiny", density=1), record(1.0, 100.0, model="mini", density=1, **other)]
    assert against_dense(configurations([*dense, record(2.0, 5.0, density=0.1)])) == []


def test_a_dense_model_is_one_whatever_its_family_is_called(record, configurations):
    dense = [record(4.0, 1.0, model="tiny", density=1), record(1.0, 100.0, model="mini", density=1, family="wide")]
    (row,) = against_dense(configurations([*dense, record(2.0, 5.0, density=0.1)]))
    assert row.ratio(FLOPS).mean == pytest.approx(0.5)


def test_seeds_that_all_share_are_compared(record, configurations):
    """As in a study that is half done: dense models lack the last seed."""
    dense = [
        record(*point, model=model, density=1, seed=seed)
        for model, point in {"tiny": (4.0, 1.0), "mini": (1.0, 100.0)}.items()
        for seed in (1, 2)
    ]
    sparse = [record(2.0, 5.0, density=0.1, seed=seed) for seed in (1, 2, 3)]
    (row,) = against_dense(configurations([*dense, *sparse]))
    assert (row.ratio(FLOPS).mean, row.ratio(FLOPS).seeds) == (pytest.approx(0.5), 2)
    assert against_dense(configurations([*dense, *sparse[2:]])) == []


def test_a_rate_of_one_lucky_seed_is_not_the_dense_model_of_its_size(record, configurations):
    seeds = (1, 2, 3)
    dense = [record(4.0, 1.0, model="tiny", density=1, seed=seed) for seed in seeds]
    dense += [record(1.0, 100.0, model="mini", density=1, seed=seed) for seed in seeds]
    lucky = record(0.5, 100.0, model="mini", density=1, seed=1, learning_rate=2e-3)
    sparse = [record(2.0, 5.0, density=0.1, seed=seed) for seed in seeds]
    (row,) = against_dense(configurations([*dense, lucky, *sparse]))
    assert (row.ratio(FLOPS).mean, row.ratio(FLOPS).seeds) == (pytest.approx(0.5), 3)
