"""Runs and scores as comma-separated values, for spreadsheets and scripts."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from evergraft.errors import EvergraftError
from evergraft.study.collection import Collection
from evergraft.study.facts import as_text
from evergraft.study.record import RunRecord
from evergraft.study.scores import SETTINGS


def runs_csv(collection: Collection) -> str:
    """One line for each run: its name, family and folder, every field of its recipe, and its result.

    The column `density` is what the recipe asks for, and `density_got` the exact density of the run.
    """
    return _csv([_run(record) for record in collection.records])


def scores_csv(collection: Collection) -> str:
    """One line for each score: the run's name and family, how and by which seed it was fine-tuned, metric and value.

    Raises:
        EvergraftError: no run of the collection has been fine-tuned.
    """
    how = (*SETTINGS, "data_identity", "seed")
    rows = [
        {"name": record.name, "family": record.family}
        | {name: getattr(result, name) for name in how}
        | {"metric": metric, "value": value}
        for record in collection.records
        for result in record.finetuned
        for metric, value in result.metrics.items()
    ]
    if not rows:
        folder = collection.records[0].folder
        raise EvergraftError(f"no run has been fine-tuned; begin with: evergraft finetune {folder} --task TASK")
    return _csv(rows)


def _run(record: RunRecord) -> dict[str, Any]:
    asked = record.recipe.model_dump(mode="json")
    recipe = {name: as_text(value) if isinstance(value, (list, dict)) else value for name, value in asked.items()}
    got = {name: value for name, value in record.result.to_dict().items() if name != "density"}
    named = {"name": record.name, "family": record.family}
    return named | recipe | {"density_got": record.result.density} | _flat(got)


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten inner dicts, joining names by underscores: `weights` within `bytes` becomes `bytes_weights`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= {f"{name}_{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    fields = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
