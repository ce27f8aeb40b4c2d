"""Fine-tuned models beside the dense one."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest

from evergraft.finetuning import FinetuneResult
from evergraft.study.csv_files import scores_csv
from evergraft.study.tables.transfer import transfer


def write_finetuning(run, number, accuracy, settings):
    """What `evergraft finetune` leaves in a run's folder."""
    folder = run.folder / "finetune" / f"sst2-s{number}"
    folder.mkdir(parents=True)
    result = FinetuneResult(
        **{
            "run": str(run.folder), "task": "sst2", "output": str(folder), "history": [], "seconds": 1.0, "steps": 1,
            "metrics": {"accuracy": accuracy, "pearson": None}, "train_examples": 9, "validation_examples": 1,
            "densified": False, "updates": 0, "epochs": 3, "batch_size": 32, "learning_rate": 1e-4, "seed": 0,
            "density": run.recipe.density,
        }
        | settings
    )  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result.to_dict()))


@pytest.mark.parametrize(("precision", "told"), [("fp32", ""), ("bf16", " precision {}")])
def test_fine_tuned_models_beside_the_dense_one(precision, told, seeds, collection, tmp_path):
    def finetuned(name, accuracies, settings, **fields):
        runs = []
        for run, values in zip(seeds(3.0, **fields), accuracies, strict=True):
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
