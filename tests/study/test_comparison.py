"""The paper's losses beside ours."""

from __future__ import annotations

from evergraft.study.comparison import comparisons
from evergraft.study.paper import PUBLISHED
from evergraft.study.tables import tables


def test_the_published_figures_are_those_of_the_paper():
    """A few that docs/method.md, section 5, also holds."""
    by_title = {table.title: table for table in PUBLISHED}
    assert by_title["Base, dynamic, density 0.1, by block"].rows["16x16",] == 2.311
    assert by_title["Small, static, by density"].rows[0.01,] == 3.244
    assert by_title["Medium, dynamic, density 0.1, 1x1, by pruning ratio"].rows[0.75,] == 2.411
    assert all(len(setting) == len(table.by) for table in PUBLISHED for setting in table.rows)


def test_ordering_beside_the_paper(seeds, configurations):
    blocks = {"1x1": 3.0, "4x4": 3.2, "8x8": 3.201, "16x16": 3.1}
    members = [
        run
        for number, (block, loss) in enumerate(blocks.items())
        for run in seeds(loss, 0.01 if number % 2 else -0.01, density=0.1, block=block)
    ]
    (base, _medium) = comparisons(configurations(members))
    assert base.table.title == "Base, dynamic, density 0.1, by block"
    assert [row.setting for row in base.rows] == [("1x1",), ("4x4",), ("8x8",), ("16x16",)]
    assert [row.same_order for row in base.rows] == ["-", "yes", "yes, within noise", "no"]


def test_configurations_that_differ_otherwise_are_compared_apart(seeds, configurations):
    members = [
        run
        for model in ("tiny", "mini")
        for block in ("1x1", "16x16")
        for run in seeds(3.0, model=model, density=0.1, block=block, updates=40)
    ]
    found = [one for one in comparisons(configurations(members)) if one.table.title.startswith("Base")]
    assert [one.shared for one in found] == ["model tiny", "model mini"]


def test_lengths_are_compared_apart(seeds, configurations):
    """A Mini trained for long says nothing of a Small trained for a moment."""
    members = seeds(2.0, model="mini", density=1, steps=50_000) + seeds(3.0, model="mini", density=1)
    (found,) = comparisons(configurations([*members, *seeds(2.5, model="small", density=1)]))
    assert [row.same_order for row in found.rows] == ["-", "yes"]


def test_a_model_is_the_papers_by_its_name_not_its_file(record, configurations):
    members = [record(3.0, model=f"/x/{name}.json", density=1) for name in ("mini", "base")]
    assert comparisons(configurations(members)) == []


def test_one_seed_is_said_to_be_one(record, configurations):
    members = [record(3.0, density=0.1, block="1x1"), record(3.1, density=0.1, block="16x16")]
    assert comparisons(configurations(members))[0].rows[1].same_order == "yes (one seed)"


def test_a_choice_of_the_best_is_said(seeds, collection):
    """A reader must see where a row is the lowest of several, for that flatters it."""
    runs = [*seeds(3.5, density=0.1, block="1x1", updates=0), *seeds(3.2, density=0.1, block="16x16")]
    runs += seeds(3.3, density=0.1, block="1x1", updates=40)
    runs += seeds(3.1, density=0.1, block="1x1", updates=80)
    made = {table.title: table for table in tables(collection(*runs))}
    blocks = made["Beside the paper: Base, dynamic, density 0.1, by block"]
    assert [row[2] for row in blocks.rows] == ["3.1000 ± 0.0248 (updates 80)", "3.2000 ± 0.0248"]
    families = made["Beside the paper: Medium, density 0.1, 1x1: static against dynamic"]
    assert [row[2] for row in families.rows] == ["3.1000 ± 0.0248 (updates 80)", "3.5000 ± 0.0248"]
    assert families.wordy == {0, 5}


def test_a_lucky_seed_is_not_the_best(seeds, record, collection):
    """Neither of the rates nor beside the paper."""
    runs = [*seeds(3.0, density=0.1, block="1x1", learning_rate=1e-3), *seeds(3.2, density=0.1)]
    runs += seeds(3.1, density=0.1, block="1x1", learning_rate=3e-3)
    runs += [record(2.0, density=0.1, block="1x1", learning_rate=2e-3)]
    made = {table.title: table for table in tables(collection(*runs))}
    (row,) = made["Learning rates"].rows
    assert row[2:4] == ("0.001 (at the edge)", "3.0000 ± 0.0248")
    assert made["Beside the paper: Base, dynamic, density 0.1, by block"].rows[0][2].startswith("3.0000 ± 0.0248")
