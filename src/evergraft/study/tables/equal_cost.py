"""How much higher or lower than dense ones sparse configurations end, at the same cost."""

from __future__ import annotations

from evergraft.study.collection import Collection
from evergraft.study.pareto import COSTS, Against, Cost, against_dense, timed_costs
from evergraft.study.sections import Part
from evergraft.study.statistics import INTERVAL
from evergraft.study.tables import Table
from evergraft.study.tables._cells import at_equal, seeds

NOTE = (
    "Validation MLM loss of a sparse configuration minus that of the dense family at the same cost, nats, by the same "
    f"interpolation as in the table of costs at equal loss; below 0 is a win. {INTERVAL}. Nothing is extrapolated. "
    "Costs as there; where steps were timed alone, time is also that of these steps."
)
FREE = (
    "The same, where dense models may have been trained for any number of steps: at equal time a smaller dense model "
    "may take more of them, and a larger one fewer."
)


def equal_cost_tables(collection: Collection) -> list[Table]:
    """A table of differences at equal steps and, where dense models differ in steps, one with their steps free."""
    made = [Table("equal-cost", "Loss at equal cost", NOTE, *_table(collection, free_steps=False))]
    if len({one.conditions["steps"] for one in collection.configurations if one.dense}) > 1:
        made.append(Table("free-steps", "Loss at equal cost, steps free", FREE, *_table(collection, free_steps=True)))
    return made


def _table(collection: Collection, free_steps: bool) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Header and rows."""
    costs = (*COSTS, *timed_costs(collection.step_times))
    compared = against_dense(collection.configurations, free_steps)
    rows = tuple((one.configuration.label, *(_cell(one, cost) for cost in costs), _seeds(one)) for one in compared)
    return ("configuration", *(f"at equal {cost.name}" for cost in COSTS), *_timed(costs), "shared seeds"), rows


def _timed(costs: tuple[Cost, ...]) -> list[str]:
    return [f"at equal time, {cost.name}" for cost in costs[len(COSTS) :]]


def _cell(one: Against, cost: Cost) -> str:
    return at_equal(one.difference(cost), 4) if one.is_known(cost) else "not timed"


def _seeds(one: Against) -> str:
    return seeds(*map(one.difference, COSTS))


TABLE = Part("pareto", equal_cost_tables, place=2)
