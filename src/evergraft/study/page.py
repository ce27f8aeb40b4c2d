"""The HTML page of a report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from evergraft import __version__
from evergraft.runs.layout import MODEL
from evergraft.study.charts import CHARTS
from evergraft.study.collection import Collection
from evergraft.study.pareto import FLOPS, against_dense
from evergraft.study.record import RunRecord
from evergraft.study.sections import SECTIONS, Section, parts_of
from evergraft.study.status import duration
from evergraft.study.tables import TABLES, Table
from evergraft.study.topologies import LayerPicture, layer_pictures

PICTURED = 4  # configurations whose topologies are drawn, at most


def page(collection: Collection, commands: Sequence[str], machines: Sequence[str]) -> str:
    """Render a report as one HTML page, which loads nothing from elsewhere.

    Args:
        collection: the runs that the page is about.
        commands: the commands that make the runs again.
        machines: descriptions of the machines that the runs ran on.
    """
    environment = Environment(loader=PackageLoader("evergraft.study"), autoescape=True)
    environment.filters["code"] = _code
    return environment.get_template("report.html.j2").render(
        collection=collection,
        facts=_facts(collection),
        sections=_sections(collection),
        pictures=_pictures(collection),
        commands=commands,
        machines=machines,
        made=f"evergraft {__version__}, {datetime.now(UTC):%d %B %Y, %H:%M} UTC",
        plotly=get_plotlyjs(),
    )


@dataclass(frozen=True)
class _FilledSection:
    """A section with what it shows.

    Attributes:
        key, title, text: the fields of the `Section`.
        charts: the HTML of each chart.
        tables: the tables, which stand below the charts.
    """

    key: str
    title: str
    text: str
    charts: tuple[str, ...]
    tables: tuple[Table, ...]


def _sections(collection: Collection) -> list[_FilledSection]:
    """The sections that have something to show."""
    filled = [_filled(section, collection) for section in SECTIONS]
    return [section for section in filled if section.charts or section.tables]


def _filled(section: Section, collection: Collection) -> _FilledSection:
    charts = tuple(map(_chart, parts_of(section, CHARTS, collection)))
    tables = tuple(table for table in parts_of(section, TABLES, collection) if table.rows)
    return _FilledSection(section.key, section.title, section.text, charts, tables)


def _chart(figure: Any) -> str:
    config = {"displaylogo": False, "responsive": True}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=config))


def _pictures(collection: Collection) -> list[tuple[str, list[LayerPicture]]]:
    """The topologies of the best evolving configurations, first seed of each, best first."""
    evolving = [one for one in collection.configurations if one.first.logged_updates and _has_model(one.first)]
    best = sorted(evolving, key=lambda one: one.loss.mean)[:PICTURED]
    return [(one.label, layer_pictures(one.first)) for one in best]


def _has_model(record: RunRecord) -> bool:
    """Whether the run's model is still there: some delete models to save room."""
    return (record.folder / MODEL).is_dir()


def _facts(collection: Collection) -> list[tuple[str, str]]:
    """Names and values for the top of the page."""
    records = collection.records
    best = min(collection.configurations, key=lambda one: one.loss.mean)
    planned = len(records) + len(collection.unfinished)
    facts = [
        ("runs", f"{len(records)} of {planned}" if collection.unfinished else f"{len(records)}"),
        ("seeds", str(len({record.recipe.seed for record in records}))),
        ("time of training", duration(sum(record.result.seconds for record in records))),
        ("lowest MLM loss", f"{best.loss.mean:.3f}"),
    ]
    found = [ratio.mean for row in against_dense(collection.configurations) if (ratio := row.ratio(FLOPS))]
    return [*facts, ("best FLOP ratio at equal loss", f"{min(found):.2f}")] if found else facts


def _code(text: str) -> Markup:
    """HTML of a text whose `commands` stand in backticks."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))
