"""Tables as Markdown and as lines of CSV."""

from __future__ import annotations

import csv
import io

from evergraft.study.collection import collect
from evergraft.study.csv_files import runs_csv
from evergraft.study.tables import tables
from evergraft.study.tables.dynamic_static import dynamic_against_static


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
