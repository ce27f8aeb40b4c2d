"""Tables as Markdown and as lines of CSV."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

from evergraft.study.collection import collect
from evergraft.study.csv_files import runs_csv
from evergraft.study.step_times import Step, StepTimes
from evergraft.study.tables import tables
from evergraft.study.tables.dynamic_static import dynamic_against_static
from evergraft.study.tables.equal_cost import equal_cost_tables
from evergraft.study.tables.equal_time import equal_time_table


def test_dynamic_against_static(seeds, collection):
    made = dynamic_against_static(
        collection(
            *seeds(3.2, density=0.1, updates=0),
            *seeds(3.1, density=0.1, updates=40),
            *seeds(3.1, density=0.1, updates=40, prune_by="l2", prune_decay="linear", prune_ratio=0.25),
            *seeds(3.3, density=0.5),
        )
    )
    assert [row[1:] for row in made.rows] == [
        ("3.2000 ± 0.0248", "3.1000 ± 0.0248", "-0.1000 ± 0.0000", "3", "yes")
    ] * 2


def test_seeds_that_were_compared_are_counted(seeds, collection):
    runs = [*seeds(3.2, density=0.1, updates=0), *seeds(3.1, density=0.1, updates=40)[:2]]
    assert dynamic_against_static(collection(*runs)).rows[0][3:] == ("-0.1000 ± 0.0000", "2", "yes")


def test_csv_has_a_line_a_run(finished_study):
    study, _ = finished_study
    rows = list(csv.DictReader(io.StringIO(runs_csv(collect([study.path])))))
    assert len(rows) == 6
    assert {row["family"] for row in rows} == {"dense", "static", "dynamic"}
    assert float(rows[0]["validation_mlm_loss"]) > 0
    assert int(rows[0]["bytes_weights"]) > 0


def test_markdown_tables(finished_study):
    study, _ = finished_study
    made = tables(collect([study.path]))
    assert {"summary", "dynamic-static", "memory"} <= {table.key for table in made}
    for table in made:
        assert all(len(row) == len(table.header) for row in table.rows)
        lines = table.to_markdown().splitlines()
        assert len(lines) == 6 + len(table.rows)
        assert len({line.count("|") for line in lines[4:]}) == 1


def timed(collection, **steps):
    """A collection with timed steps: seconds by model and kind of step."""
    shape = {"batch_size": 32, "sequence_length": 128, "precision": "fp32"}
    found = {
        Step(name.split("_")[0], kind, density=0.1 if kind == "1x1" else 1.0, **shape): seconds
        for name, (kind, seconds) in steps.items()
    }
    return replace(collection, step_times=StepTimes("a machine, 1 threads", found, {}))


def test_time_at_equal_loss_by_timed_steps(record, collection):
    dense = [record(4.0, 1.0, model="tiny", density=1), record(1.0, 100.0, model="mini", density=1)]
    sparse = [record(2.0, 5.0, model=model, density=0.1, block="1x1", updates=0) for model in ("tiny", "small")]
    runs = collection(*dense, *sparse)
    assert equal_time_table(runs) == []
    lean = {"tiny_": ("lean dense", 1.0), "mini_": ("lean dense", 4.0)}
    (made,) = equal_time_table(timed(runs, **lean, tiny_sparse=("1x1", 1.0)))
    assert made.header == ("configuration", "over lean dense fp32", "shared seeds")
    assert [row[1:] for row in made.rows] == [("0.500", "1")]  # no step of a Small was timed
    assert "a machine, 1 threads" in made.note
    (cost,) = equal_cost_tables(timed(runs, **lean, tiny_sparse=("1x1", 1.0)))
    assert [row[4] for row in cost.rows] == ["-2.0000", "not timed"]


def test_steps_are_free_where_dense_models_differ_in_them(record, collection):
    dense = [record(4.0, 1.0, model="tiny", density=1), record(1.0, 100.0, model="mini", density=1)]
    runs = [*dense, record(2.0, 5.0, density=0.1)]
    assert [table.key for table in equal_cost_tables(collection(*runs))] == ["equal-cost"]
    longer = record(1.5, 2.0, model="tiny", density=1, steps=2000)
    made = equal_cost_tables(collection(*runs, longer))
    assert [table.key for table in made] == ["equal-cost", "free-steps"]
    assert made[0].rows != made[1].rows
