"""One report of many runs: a self-contained HTML page, Markdown, or comma-separated values."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from evergraft.errors import EvergraftError
from evergraft.files.folders import write_atomically
from evergraft.runs.environment import Environment
from evergraft.study.collection import Collection, collect
from evergraft.study.csv_files import runs_csv, scores_csv
from evergraft.study.status import STATES, counted
from evergraft.study.step_times import StepTimes
from evergraft.study.tables import tables

Format = Literal["html", "markdown", "csv", "scores"]


def report(
    targets: Sequence[Path], form: Format = "html", output: Path | None = None, steps: Path | None = None
) -> tuple[str, Path | None]:
    """Make a report of a study or of runs.

    Args:
        targets: one study file, or run folders.
        form: `html` is one file with everything, charts included; `markdown` has the tables; `csv` has one line for
            each run; `scores`, comma-separated too, has one line for each score of a fine-tuned model.
        output: the file to write; by default STUDY.html in the study's output for the HTML page of a study, report.html
            in the current folder for that of runs, and no file for the other forms.
        steps: a file of results of `evergraft bench step`; times are then also compared by the steps in it.

    Returns:
        The text, and the file that holds it, if one does.

    Raises:
        EvergraftError: the targets are no finished runs (`collect`), there are no scores (`scores_csv`), `output` is a
            folder, or `steps` holds no results that can be compared (`StepTimes.read`).

    Example:
        >>> text, path = report([Path("studies/blocks.yaml")])
        >>> path
        PosixPath('runs/proxy/blocks.html')
        >>> print(report([Path("runs/tiny")], "markdown")[0])
    """
    times = None if steps is None else StepTimes.read(steps)
    collection = replace(collect(targets), step_times=times)
    text = _WRITERS[form](collection)
    path = output or (collection.page if form == "html" else None)
    if path is not None:
        if path.is_dir():
            raise EvergraftError(f"`output` {path} is a folder; name the file to write, such as {path / 'report.html'}")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    return text, path


def to_html(collection: Collection) -> str:
    """The page with charts, tables and topologies, which loads nothing from elsewhere."""
    from evergraft.study.page import page  # charts and topologies need plotly and torch, which the other forms do not

    return page(collection, commands(collection), machines(collection))


def to_markdown(collection: Collection) -> str:
    """The tables in Markdown, with what is needed to read them."""
    parts = [f"# {collection.title}", ""]
    parts += [collection.question.strip(), ""] if collection.question else []
    if collection.unfinished:
        waiting = counted([state for _, state in collection.unfinished])
        failed = [f"{name} ({state})" for name, state in collection.unfinished if state not in STATES]
        listed = ", ".join(filter(None, [waiting, *failed]))
        parts += [f"Runs not finished, and not in the figures: {listed}.", ""]
    parts += [table.to_markdown() for table in tables(collection)]
    parts += ["## Commands and machines", ""]
    parts += [f"- `{line}`" for line in commands(collection)] + [f"- {line}" for line in machines(collection)]
    return "\n".join(parts) + "\n"


def commands(collection: Collection) -> list[str]:
    """The commands that make the runs again."""
    if collection.command:
        return [collection.command]
    return [shlex.join(["evergraft", *record.environment.command[1:]]) for record in collection.records]


def machines(collection: Collection) -> list[str]:
    """What the runs ran on: a line for each environment among them, with the number of its runs."""
    found = Counter(_machine(record.environment) for record in collection.records)
    return [f"{count} runs: {line}" for line, count in found.items()]


def _machine(environment: Environment) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    device = environment.gpu or f"{environment.processor} ({environment.cpu_capability})"
    commit = f"commit {environment.commit}, " if environment.commit else ""  # there is none outside a git checkout
    return (
        f"{device}, {environment.threads} threads, {environment.platform}, {commit}Python {environment.python}, "
        f"{versions}"
    )


_WRITERS: dict[Format, Callable[[Collection], str]] = {
    "html": to_html,
    "markdown": to_markdown,
    "csv": runs_csv,
    "scores": scores_csv,
}
