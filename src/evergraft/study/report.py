"""One report of many runs: a self-contained HTML page, Markdown, or CSV."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from evergraft import __version__
from evergraft.errors import EvergraftError
from evergraft.files.folders import write_atomically
from evergraft.runs.folder import MODEL
from evergraft.study.collection import Collection, RunRecord, collect
from evergraft.study.pareto import COSTS, equal_loss
from evergraft.study.status import STATES, counted, duration
from evergraft.study.tables import Table, runs_csv, scores_csv, tables

Format = Literal["html", "markdown", "csv", "scores"]
PICTURED = 4  # runs whose topologies are drawn


def report(targets: Sequence[Path], form: Format = "html", output: Path | None = None) -> tuple[str, Path | None]:
    """Make a report of a study or of runs.

    Args:
        targets: one study file, or run folders.
        form: `html` is one file with everything in it, charts too; `markdown` has the tables; `csv` a line a run;
            `scores`, CSV too, a line a score of a fine-tuned model.
        output: the file to write; by default STUDY.html in the study's output (of runs: report.html here) for HTML, and
            nothing for the others.

    Returns:
        The text, and the file that holds it, if one does.

    Raises:
        EvergraftError: as `collect` and `scores_csv`.
    """
    collection = collect(targets)
    text = {"html": to_html, "markdown": to_markdown, "csv": runs_csv, "scores": scores_csv}[form](collection)
    path = output or (collection.page if form == "html" else None)
    if path is not None:
        if path.is_dir():
            raise EvergraftError(f"--output {path} is a folder; name the file to write, such as {path / 'report.html'}")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    return text, path


def to_markdown(collection: Collection) -> str:
    """The tables, with what they need to be read."""
    parts = [f"# {collection.title}", ""]
    parts += [collection.question.strip(), ""] if collection.question else []
    if collection.unfinished:
        waiting = counted([state for _, state in collection.unfinished])
        failed = [f"{name} ({state})" for name, state in collection.unfinished if state not in STATES]
        listed = ", ".join(filter(None, [waiting, *failed]))
        parts += [f"Runs not finished, and not in the figures: {listed}.", ""]
    parts += [table.to_markdown() for table in tables(collection)]
    parts += ["## Commands and machines", ""]
    parts += [f"- `{line}`" for line in _commands(collection)] + [f"- {line}" for line in machines(collection)]
    return "\n".join(parts) + "\n"


@dataclass(frozen=True)
class Section:
    """One part of the page.

    Attributes:
        key: names it in links.
        title, text: its heading, and how to read it.
        charts: HTML.
        tables: below the charts.
    """

    key: str
    title: str
    text: str
    charts: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()


def to_html(collection: Collection) -> str:
    """The page; it loads nothing from anywhere."""
    from plotly.offline import get_plotlyjs

    environment = Environment(loader=PackageLoader("evergraft.study"), autoescape=True)
    environment.filters["code"] = _code
    return environment.get_template("report.html.j2").render(
        collection=collection,
        facts=_facts(collection),
        sections=_sections(collection),
        pictures=_pictures(collection),
        commands=_commands(collection),
        machines=machines(collection),
        made=f"evergraft {__version__}, {datetime.now(UTC):%d %B %Y, %H:%M} UTC",
        plotly=get_plotlyjs(),
    )


def machines(collection: Collection) -> list[str]:
    """What the runs ran on, a line for each environment among them."""
    found: dict[str, int] = {}
    for record in collection.records:
        line = _machine(record.environment)
        found[line] = found.get(line, 0) + 1
    return [f"{count} runs: {line}" for line, count in found.items()]


def _sections(collection: Collection) -> list[Section]:
    from evergraft.study import charts as figures

    made = tables(collection)
    by_key = {table.key: table for table in made}
    paper = tuple(table for table in made if table.key.startswith("paper-"))

    def chosen(*keys: str) -> tuple[Table, ...]:
        return tuple(by_key[key] for key in keys if key in by_key)

    def charts(*makers: Callable[[], Any]) -> tuple[str, ...]:
        return tuple(_chart(figure) for make in makers if (figure := make()) is not None)

    sections = [
        Section("results", "Results", "", (), chosen("summary")),
        Section(
            "pareto",
            "Loss against cost",
            "Every point is the mean of a configuration over its seeds; both axes are logarithmic; lines join each "
            "family's Pareto front, under each of the conditions it was trained in. Sparse points below the dense line "
            "of their own conditions win at equal cost; the distance to it along the cost axis is, for one seed, the "
            "ratio at equal loss.",
            charts(
                *(partial(figures.loss_against, collection, cost) for cost in COSTS),
                lambda: figures.ratios(collection),
            ),
            chosen("equal-loss"),
        ),
        Section("static", "Dynamic against static", "", (), chosen("dynamic-static")),
        Section("paper", "Beside the paper", "", (), paper),
        Section("rates", "Learning rates", "", (), chosen("learning-rate")),
        Section(
            "curves",
            "Training",
            "Losses logged while training, each over the steps since the line before: means over seeds, or the first "
            "seed alone where seeds were logged at different steps. The buttons change what is on the horizontal axis; "
            "a click in the legend hides a line, a double click all others.",
            charts(lambda: figures.loss_curves(collection)),
        ),
        Section(
            "exploration",
            "Exploration",
            "Explored degrees of freedom: the share of weights that were ever active. Removed-new ratio: the share of "
            "the blocks grown at one update that the next one pruned. Both of the first seed.",
            charts(
                lambda: figures.exploration(collection),
                lambda: figures.churn(collection),
                lambda: figures.exploration_against_loss(collection),
            ),
        ),
        Section("transfer", "Fine-tuning", "", (), chosen("transfer")),
        Section("memory", "Memory", "", charts(lambda: figures.memory(collection)), chosen("memory")),
    ]
    return [section for section in sections if section.charts or section.tables]


def _chart(figure: Any) -> str:
    config = {"displaylogo": False, "responsive": True}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=config))


def _pictures(collection: Collection) -> list[tuple[str, list[Any]]]:
    """The topologies of the best evolving configurations, first seed of each, best first."""
    from evergraft.study.topologies import layer_pictures

    evolving = [one for one in collection.configurations if one.records[0].topology and _has_model(one.records[0])]
    best = sorted(evolving, key=lambda one: one.loss.mean)[:PICTURED]
    return [(one.label, layer_pictures(one.records[0])) for one in best]


def _has_model(record: RunRecord) -> bool:
    """Whether it is still there: some delete models to save room."""
    return (record.folder / MODEL).is_dir()


def _facts(collection: Collection) -> list[tuple[str, str]]:
    """A few figures for the top of the page."""
    records = collection.records
    best = min(collection.configurations, key=lambda one: one.loss.mean)
    facts = [
        (
            "runs",
            f"{len(records)}" + (f" of {len(records) + len(collection.unfinished)}" * bool(collection.unfinished)),
        ),
        ("seeds", str(len({record.recipe.seed for record in records}))),
        ("time of training", duration(sum(record.result["seconds"] for record in records))),
        ("lowest MLM loss", f"{best.loss.mean:.3f}"),
    ]
    found = [ratio.mean for row in equal_loss(collection.configurations) if (ratio := row.ratios["flops_total"])]
    return [*facts, ("best FLOP ratio at equal loss", f"{min(found):.2f}")] if found else facts


def _code(text: str) -> Markup:
    """HTML of a text whose `commands` stand in backticks."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _commands(collection: Collection) -> list[str]:
    """What makes the runs again."""
    if collection.command:
        return [collection.command]
    return [_command(record) for record in collection.records]


def _command(record: RunRecord) -> str:
    return shlex.join(["evergraft", *record.environment["command"][1:]])


def _machine(environment: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    device = environment["gpu"] or f"{environment['processor']} ({environment['cpu_capability']})"
    commit = f"commit {environment['commit']}, " if environment.get("commit") else ""  # none where it was installed
    return (
        f"{device}, {environment['threads']} threads, {environment['platform']}, {commit}"
        f"Python {environment['python']}, {versions}"
    )
