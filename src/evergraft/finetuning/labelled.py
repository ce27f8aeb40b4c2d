"""Labelled sentences from tab-separated tables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evergraft.corpus.formats import COMPRESSED, text_lines
from evergraft.errors import EvergraftError
from evergraft.finetuning.tasks import TASKS, Task

SUFFIXES = (".tsv", *(f".tsv{suffix}" for suffix in COMPRESSED))
HELD_OUT = 10  # one example in so many is held out of a table that comes without a validation table
Row = dict[str, str]


class Examples(NamedTuple):
    """Labelled sentences, or pairs.

    Attributes:
        first: the sentence of each example, or the first of its pair.
        second: the other sentence of each pair; None where examples are single sentences.
        labels: the class id or the score of each example.
    """

    first: list[str]
    second: list[str] | None
    labels: list[int] | list[float]


def load_task(task: str, data: Path | None = None, validation: Path | None = None) -> tuple[Task, Examples, Examples]:
    """A task with its training and validation examples.

    Args:
        task: one of TASKS, or the path of a table with a header line: `sentence` or `sentence1` and `sentence2`, and
            `label`. Labels that are all numbers, one of them not whole, are scores; others are classes.
        data: for a named task, the folder with train.tsv and dev.tsv, or with a folder of the task's name that has them
            (.gz, .xz and .zst too).
        validation: for a table, another one to validate on; by default one example in ten is held out, drawn at random.

    Raises:
        EvergraftError: an unknown task, a missing file or folder or column, a ragged line, an unknown label, or a table
            with too few examples.

    Example:
        >>> task, train, dev = load_task("rte", Path("glue"))
        >>> task.labels
        ('entailment', 'not_entailment')
    """
    if task in TASKS:
        return _named(task, data, validation)
    if not task.endswith(SUFFIXES):
        raise EvergraftError(f"`task` must be {', '.join(TASKS)}, or a table such as FILE.tsv; got {task}")
    if data is not None:
        raise EvergraftError("`data` is for a named task; give the table itself as `task`, another as `validation`")
    return _own(Path(task), validation)


def _named(name: str, data: Path | None, validation: Path | None) -> tuple[Task, Examples, Examples]:
    if data is None:
        raise EvergraftError(f"`task` {name} needs `data`, the folder that holds train.tsv and dev.tsv")
    if validation is not None:
        raise EvergraftError(f"`task` {name} is validated on its dev.tsv; `validation` is for a table of your own")
    task = TASKS[name]
    train, dev = (_read(_find(data, name, part), task.header) for part in ("train", "dev"))
    return task, _examples(task, *train), _examples(task, *dev)


def _own(path: Path, validation: Path | None) -> tuple[Task, Examples, Examples]:
    source, rows = _read(path)
    task = _own_task(source, rows)
    if validation is not None:
        return task, _examples(task, source, rows), _examples(task, *_read(validation))
    kept, held_out = _split(source, rows)
    return task, _examples(task, source, kept), _examples(task, source, held_out)


def examples_identity(*parts: Examples) -> str:
    """A hash of examples, by which fine-tunings on the same examples are recognised."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _find(data: Path, name: str, part: str) -> Path:
    for folder in (data, data / name):
        for suffix in SUFFIXES:
            if (folder / f"{part}{suffix}").is_file():
                return folder / f"{part}{suffix}"
    raise EvergraftError(f"`data` {data} holds neither {part}.tsv nor {name}/{part}.tsv (nor these with .gz .xz .zst)")


def _read(path: Path, header: Sequence[str] | None = None) -> tuple[Path, list[Row]]:
    """A table's path and its rows; its fields are never quoted.

    Args:
        path: the table's path.
        header: the names of the columns; by default the first line has them.
    """
    if not path.is_file():
        raise EvergraftError(f"{path} does not exist; expected a tab-separated table")
    rows: list[Row] = []
    columns = header
    for number, line in text_lines(path):
        cells = line.split("\t")
        if columns is None:
            columns = cells
            if twice := [name for name in columns if columns.count(name) > 1]:
                raise EvergraftError(f"{path} has two columns {twice[0]!r}; keep one of them")
            continue
        if len(cells) != len(columns):
            raise EvergraftError(
                f"{path}, line {number}: expected {len(columns)} tab-separated fields; got {len(cells)}"
            )
        rows.append(dict(zip(columns, cells, strict=True)))
    if not rows:
        raise EvergraftError(f"{path} holds no example")
    return path, rows


def _own_task(path: Path, rows: Sequence[Row]) -> Task:
    columns = rows[0].keys()
    pair = "sentence1" in columns
    wanted = ("sentence1", "sentence2", "label") if pair else ("sentence", "label")
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise EvergraftError(
            f"{path} has no column {' and no '.join(missing)}; its first line must name sentence and label, or "
            f"sentence1, sentence2 and label; got {', '.join(columns)}"
        )
    first, second = ("sentence1", "sentence2") if pair else ("sentence", None)
    found = sorted({row["label"].strip() for row in rows})
    if "" in found:
        raise EvergraftError(f"{path}: an example has no label; give it one, or remove its line")
    if _are_scores(found):
        return Task(path.name, first, second, "label", None, ("pearson", "spearman"))
    if len(found) < 2:
        raise EvergraftError(f"{path}: every example is labelled {found[0]!r}; expected two classes or more")
    return Task(path.name, first, second, "label", tuple(found), ("accuracy", "macro_f1"))


def _are_scores(labels: Sequence[str]) -> bool:
    try:
        return not all(float(label).is_integer() for label in labels)
    except ValueError:
        return False


def _split(path: Path, rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    if len(rows) < 2 * HELD_OUT:
        raise EvergraftError(
            f"{path} holds {len(rows)} examples, too few to hold any out; give another table as `validation`"
        )
    order = np.random.default_rng(0).permutation(len(rows))
    held_out = set(order[: len(rows) // HELD_OUT].tolist())
    kept = [row for index, row in enumerate(rows) if index not in held_out]
    return kept, [rows[index] for index in sorted(held_out)]


def _examples(task: Task, path: Path, rows: Sequence[Row]) -> Examples:
    columns = [task.first, task.label, *([task.second] if task.second else [])]
    missing = [name for name in columns if name not in rows[0]]
    if missing:
        raise EvergraftError(
            f"{path} has no column {missing[0]!r}; {task.name} expects {', '.join(map(repr, columns))}"
        )
    labels = [_label(task, path, row[task.label].strip()) for row in rows]
    second = [row[task.second] for row in rows] if task.second else None
    return Examples([row[task.first] for row in rows], second, labels)


def _label(task: Task, path: Path, text: str) -> int | float:
    if task.labels is not None:
        if text not in task.labels:
            raise EvergraftError(f"{path}: {text!r} is no label of {task.name}; expected {', '.join(task.labels)}")
        return task.labels.index(text)
    try:
        score = float(text)
    except ValueError:
        score = float("nan")
    if not np.isfinite(score):
        raise EvergraftError(f"{path}: {text!r} is no score; {task.name} expects numbers")
    return score
