"""What sparse configurations cost in time at the loss of dense ones, by steps that were timed alone."""

from __future__ import annotations

from evergraft.study.collection import Collection
from evergraft.study.pareto import Against, Cost, against_dense, timed_costs
from evergraft.study.sections import Part
from evergraft.study.tables import Table
from evergraft.study.tables._cells import at_equal, seeds

NOTE = (
    "Time of a sparse configuration over that of the dense family at the same validation MLM loss, as in the table of "
    "costs; below 1 is a win. Times are those of steps that `evergraft bench step` timed alone, on {machine}: the "
    "fastest step of each model, times the steps of the run, and for sparse models the topology updates. Reading text "
    "and the Trainer's own work are not in them. Each column is a dense rival; the sparse step beside it is in the "
    "same precision, and beside the fastest rival in whichever is fastest. Losses are those of the runs."
)


def equal_time_table(collection: Collection) -> list[Table]:
    """A table with a row for each sparse configuration of which a step was timed; none without timed steps."""
    costs = timed_costs(collection.step_times)
    if collection.step_times is None or not costs:
        return []
    known = [one for one in against_dense(collection.configurations) if any(map(one.is_known, costs))]
    rows = tuple((one.configuration.label, *(_cell(one, cost) for cost in costs), _seeds(one, costs)) for one in known)
    header = ("configuration", *(f"over {cost.name}" for cost in costs), "shared seeds")
    return [Table("equal-time", "Time at equal loss", NOTE.format(machine=collection.step_times.machine), header, rows)]


def _cell(one: Against, cost: Cost) -> str:
    return at_equal(one.ratio(cost)) if one.is_known(cost) else "not timed"


def _seeds(one: Against, costs: tuple[Cost, ...]) -> str:
    return seeds(*map(one.ratio, costs))


TABLE = Part("pareto", equal_time_table, place=1)
