"""Tables, labels, and the paper's figures beside ours."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from evergraft.errors import EvergraftError
from evergraft.study.collection import collect
from evergraft.study.paper import PUBLISHED, comparisons
from evergraft.study.rates import sweeps
from evergraft.study.tables import dynamic_against_static, learning_rates, runs_csv, scores_csv, tables, transfer


def seeds(record, loss, spread=0.01, **fields):
    return [record(loss + spread * (seed - 1), seed=seed, **fields) for seed in (0, 1, 2)]


def test_configurations_gather_seeds_and_are_named_by_what_differs(record, configurations):
    made = configurations(
        [
            *seeds(record, 3.0, density=1),
            *seeds(record, 3.2, density=0.1, updates=0),
            *seeds(record, 3.1, density=0.1, updates=40),
            *seeds(record, 3.1, density=0.1, updates=80),
            *seeds(record, 3.1, density=0.25, block="16x1"),
        ]
    )
    assert [one.label for one in made] == [
        "dense",
        "static d0.1 16x16",
        "dynamic d0.1 16x16 updates 40",
        "dynamic d0.1 16x16 updates 80",
        "dynamic d0.25 16x1",
    ]
    assert made[0].loss.text(3) == "3.000 ± 0.025"
    assert made[0].by_seed("validation_mlm_loss") == {0: 2.99, 1: 3.0, 2: 3.01}


def test_the_published_figures_are_those_of_the_paper():
    """A few that docs/method.md, section 5, also holds."""
    by_title = {table.title: table for table in PUBLISHED}
    assert by_title["Base, dynamic, density 0.1, by block"].rows["16x16",] == 2.311
    assert by_title["Small, static, by density"].rows[0.01,] == 3.244
    assert by_title["Medium, dynamic, density 0.1, 1x1, by pruning ratio"].rows[0.75,] == 2.411
    assert all(len(setting) == len(table.by) for table in PUBLISHED for setting in table.rows)


def test_ordering_beside_the_paper(record, configurations):
    blocks = {"1x1": 3.0, "4x4": 3.2, "8x8": 3.201, "16x16": 3.1}
    members = [
        run
        for number, (block, loss) in enumerate(blocks.items())
        for run in seeds(record, loss, 0.01 if number % 2 else -0.01, density=0.1, block=block)
    ]
    (base, _medium) = comparisons(configurations(members))
    assert base.table.title == "Base, dynamic, density 0.1, by block"
    assert [row.setting for row in base.rows] == [("1x1",), ("4x4",), ("8x8",), ("16x16",)]
    assert [row.same_order for row in base.rows] == ["-", "yes", "yes, within noise", "no"]


def test_configurations_that_differ_otherwise_are_compared_apart(record, configurations):
    members = [
        run
        for model in ("tiny", "mini")
        for block in ("1x1", "16x16")
        for run in seeds(record, 3.0, model=model, density=0.1, block=block, updates=40)
    ]
    found = [one for one in comparisons(configurations(members)) if one.table.title.startswith("Base")]
    assert [one.shared for one in found] == ["model tiny", "model mini"]


def test_lengths_are_compared_apart(record, configurations):
    """A Mini trained for long says nothing of a Small trained for a moment."""
    members = seeds(record, 2.0, model="mini", density=1, steps=50_000) + seeds(record, 3.0, model="mini", density=1)
    (found,) = comparisons(configurations([*members, *seeds(record, 2.5, model="small", density=1)]))
    assert [row.same_order for row in found.rows] == ["-", "yes"]


def test_two_runs_of_one_recipe_and_seed_are_refused(record, configurations):
    runs = [replace(record(loss, seed=7), folder=Path(name)) for name, loss in (("runs/a", 3.0), ("runs/b", 3.1))]
    with pytest.raises(EvergraftError, match="runs/a and runs/b are runs of one recipe and seed"):
        configurations(runs)


@pytest.mark.parametrize("name", ["corpus_identity", "model_identity"])
def test_runs_on_other_text_or_of_another_file_are_no_seeds_of_one(record, configurations, name):
    runs = [record(loss, seed=seed, density=1) for seed, loss in enumerate((3.0, 4.0))]
    runs = [
        replace(run, environment=run.environment | {name: identity}) for run, identity in zip(runs, "ab", strict=True)
    ]
    made = configurations(runs)
    kind = name.removesuffix("_identity")
    assert [one.label for one in made] == [f"dense {kind} a", f"dense {kind} b"]
    assert not made[0].trained_like(made[1])


def test_dense_models_have_no_blocks_and_static_ones_no_pruning(record, configurations):
    """So runs that differ in these alone are seeds of one configuration."""
    dense = [record(3.0, density=1, seed=0, block="4x4"), record(3.1, density=1, seed=1, block="8x8")]
    static = [record(3.2, updates=0, seed=seed, prune_by=by) for seed, by in enumerate(("l1", "l2"))]
    assert [one.label for one in configurations([*dense, *static])] == ["dense", "static d0.1"]


def test_a_lucky_seed_is_not_the_best(record, collection):
    """Neither of the rates nor beside the paper."""
    runs = [*seeds(record, 3.0, density=0.1, block="1x1", learning_rate=1e-3), *seeds(record, 3.2, density=0.1)]
    runs += seeds(record, 3.1, density=0.1, block="1x1", learning_rate=3e-3)
    runs += [record(2.0, density=0.1, block="1x1", learning_rate=2e-3)]
    made = {table.title: table for table in tables(collection(*runs))}
    (row,) = made["Learning rates"].rows
    assert row[2:4] == ("0.001 (at the edge)", "3.0000 ± 0.0248")
    assert made["Beside the paper: Base, dynamic, density 0.1, by block"].rows[0][2].startswith("3.0000 ± 0.0248")


def test_a_model_is_the_papers_by_its_name_not_its_file(record, configurations):
    members = [record(3.0, model=f"/x/{name}.json", density=1) for name in ("mini", "base")]
    assert comparisons(configurations(members)) == []


def test_seeds_that_were_compared_are_counted(record, collection):
    runs = [*seeds(record, 3.2, density=0.1, updates=0), *seeds(record, 3.1, density=0.1, updates=40)[:2]]
    assert dynamic_against_static(collection(*runs)).rows[0][3:] == ("-0.1000 ± 0.0000", "2", "yes")


def test_labels_differ(record, configurations):
    made = configurations(
        [
            *(record(3.0, model=f"/{name}/config.json", density=1) for name in "ab"),
            *(record(3.0, model="/a/config.json", density=1, learning_rate=rate) for rate in (1e-3, 1.0004e-3)),
        ]
    )
    assert [one.label for one in made] == [
        "dense /a/config.json learning rate None",
        "dense /b/config.json",
        "dense /a/config.json learning rate 0.001",
        "dense /a/config.json learning rate 0.0010004",
    ]


@pytest.mark.parametrize(
    ("workload", "told"),
    [({"precision": "bf16"}, "precision {}"), ({"steps": 500}, "steps {}"), ({"batch_size": 64}, "batch size {}")],
)
def test_labels_tell_workloads_apart(record, configurations, workload, told):
    """A dense model in bf16 beside sparse ones in fp32 is not compared with them, and a reader must see why."""
    ((name, value),) = workload.items()
    sparse = record(3.2, density=0.1, updates=0)
    made = configurations([record(3.0, density=1, **workload), sparse])
    assert [one.label for one in made] == [
        f"dense {told.format(value)}",
        f"static d0.1 {told.format(getattr(sparse.recipe, name))}",
    ]
    assert not made[0].trained_like(made[1])


def test_a_choice_of_the_best_is_said(record, collection):
    """A reader must see where a row is the lowest of several, for that flatters it."""
    runs = [*seeds(record, 3.5, density=0.1, block="1x1", updates=0), *seeds(record, 3.2, density=0.1, block="16x16")]
    runs += seeds(record, 3.3, density=0.1, block="1x1", updates=40)
    runs += seeds(record, 3.1, density=0.1, block="1x1", updates=80)
    made = {table.title: table for table in tables(collection(*runs))}
    blocks = made["Beside the paper: Base, dynamic, density 0.1, by block"]
    assert [row[2] for row in blocks.rows] == ["3.1000 ± 0.0248 (updates 80)", "3.2000 ± 0.0248"]
    families = made["Beside the paper: Medium, density 0.1, 1x1: static against dynamic"]
    assert [row[2] for row in families.rows] == ["3.1000 ± 0.0248 (updates 80)", "3.5000 ± 0.0248"]
    assert families.wordy == {0, 5}


def test_one_seed_is_said_to_be_one(record, configurations):
    members = [record(3.0, density=0.1, block="1x1"), record(3.1, density=0.1, block="16x16")]
    assert comparisons(configurations(members))[0].rows[1].same_order == "yes (one seed)"


def test_dynamic_against_static(record, collection):
    made = dynamic_against_static(
        collection(
            *seeds(record, 3.2, density=0.1, updates=0),
            *seeds(record, 3.1, density=0.1, updates=40),
            *seeds(record, 3.1, density=0.1, updates=40, prune_by="l2", prune_decay="linear", prune_ratio=0.25),
            *seeds(record, 3.3, density=0.5),
        )
    )
    assert [row[1:] for row in made.rows] == [
        ("3.2000 ± 0.0248", "3.1000 ± 0.0248", "-0.1000 ± 0.0000", "3", "yes")
    ] * 2


def test_learning_rates_beside_the_formula(record, collection):
    runs = [
        run
        for density, losses in {1: (3.1, 3.0, 3.2), 0.1: (3.3, 3.2, 3.3), 0.5: (3.5, 3.4, 3.3)}.items()
        for rate, loss in zip((1e-3, 2e-3, 4e-3), losses, strict=True)
        for run in seeds(record, loss, density=density, updates=0, learning_rate=rate * (4 if density < 0.5 else 1))
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


def write_finetuning(run, number, accuracy, settings):
    """What `evergraft finetune` leaves in a run's folder."""
    folder = run.folder / "finetune" / f"sst2-s{number}"
    folder.mkdir(parents=True)
    how = {"densified": False, "updates": 0, "epochs": 3, "batch_size": 32, "learning_rate": 1e-4}
    result = {"task": "sst2", "metrics": {"accuracy": accuracy, "pearson": None}} | how | settings
    (folder / "result.json").write_text(json.dumps(result))


@pytest.mark.parametrize(("precision", "told"), [("fp32", ""), ("bf16", " precision {}")])
def test_fine_tuned_models_beside_the_dense_one(precision, told, record, collection, tmp_path):
    def finetuned(name, accuracies, settings, **fields):
        runs = []
        for run, values in zip(seeds(record, 3.0, **fields), accuracies, strict=True):
            runs.append(replace(run, folder=tmp_path / f"{name}-{run.recipe.seed}"))
            for number, value in enumerate(values):
                write_finetuning(runs[-1], number, value, settings)
        return runs

    dense = finetuned("dense", [[0.7, 0.8], [0.75, 0.75], [0.7]], {}, density=1, precision=precision)
    sparse = finetuned("sparse", [[0.8], [0.8, 0.8], [0.75]], {"learning_rate": 2e-4}, density=0.1, updates=0)
    low, high = (f"3 epochs, batches of 32, rate {rate}" for rate in ("0.0001", "0.0002"))
    ours, theirs = f"static d0.1{told.format('fp32')}", f"dense{told.format(precision)}"
    assert transfer(collection(*sparse, *dense)).rows == (
        ("sst2, Pearson", ours, "as it was", high, "0 (0)", "undefined", "-"),
        ("sst2, Pearson", theirs, "as it was", low, "0 (0)", "undefined", "-"),
        ("sst2, accuracy", ours, "as it was", high, "3 (4)", "0.783 ± 0.072", "0.050 ± 0.000"),
        ("sst2, accuracy", theirs, "as it was", low, "3 (5)", "0.733 ± 0.072", "-"),
    )


def test_the_best_rate_is_that_of_the_seeds_compared(record, collection, tmp_path):
    """One fine-tuning more, of one seed at another rate, takes nothing away."""
    runs = []
    for density in (1, 0.1):
        for seed in (1, 2, 3):
            runs.append(replace(record(3.0, density=density, seed=seed), folder=tmp_path / f"{density}-{seed}"))
            if density == 1 or seed < 3:
                write_finetuning(runs[-1], 0, 0.7 + 0.02 * (density < 1), {})
    write_finetuning(runs[2], 1, 0.9, {"learning_rate": 1e-3})
    rows = [row for row in transfer(collection(*runs)).rows if row[0] == "sst2, accuracy"]
    assert [row[-1] for row in rows if row[1].startswith("dynamic")] == ["0.020 ± 0.000"]


def test_fine_tunings_on_other_data_are_no_repeats(record, collection, tmp_path):
    run = replace(record(3.0, density=0.1), folder=tmp_path)
    for number, data in enumerate("ab"):
        write_finetuning(run, number, 0.5 + number / 10, {"data_identity": data})
    rows = [row for row in transfer(collection(run)).rows if row[0].endswith("accuracy")]
    assert [(row[0], row[4], row[5]) for row in rows] == [
        ("sst2 (a), accuracy", "1 (1)", "0.500"),
        ("sst2 (b), accuracy", "1 (1)", "0.600"),
    ]


def test_only_like_fine_tunings_are_repeats_of_each_other(record, collection, tmp_path):
    run = replace(record(3.0, density=0.1), folder=tmp_path)
    for number, other in enumerate([{}, {}, {"updates": 5}, {"epochs": 30}, {"learning_rate": 1e-3}]):
        write_finetuning(run, number, 0.5 + number / 10, other)
    rows = [row for row in transfer(collection(run)).rows if row[0] == "sst2, accuracy"]
    assert sorted((row[2], row[4], row[5]) for row in rows) == [
        ("5 updates", "1 (1)", "0.700"),
        ("as it was", "1 (1)", "0.800"),
        ("as it was", "1 (1)", "0.900"),
        ("as it was", "1 (2)", "0.550"),
    ]


def test_scores_have_a_line_each(record, collection, tmp_path):
    runs = [replace(record(3.0, density=density), folder=tmp_path / f"{density}") for density in (1, 0.1)]
    for run in runs:
        write_finetuning(run, 7, 0.5, {"learning_rate": 1e-3, "seed": 7})
    rows = list(csv.DictReader(io.StringIO(scores_csv(collection(*runs)))))
    assert [(row["family"], row["metric"], row["value"]) for row in rows] == [
        ("dense", "accuracy", "0.5"),
        ("dense", "pearson", ""),
        ("dynamic", "accuracy", "0.5"),
        ("dynamic", "pearson", ""),
    ]
    assert {(row["task"], row["learning_rate"], row["seed"]) for row in rows} == {("sst2", "0.001", "7")}


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
