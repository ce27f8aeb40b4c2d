"""The sections of a report, and that a new chart or table is one file."""

from __future__ import annotations

import plotly.graph_objects as go
import pytest

from evergraft.study.charts import CHARTS
from evergraft.study.page import page
from evergraft.study.sections import SECTIONS, Part, parts_of
from evergraft.study.tables import TABLES, Table, tables


def test_every_part_stands_in_a_section_at_a_place_of_its_own():
    for registry in (CHARTS, TABLES):
        places = [(part.section, part.place) for part in map(registry.get, registry.names())]
        assert {section for section, _ in places} <= {section.key for section in SECTIONS}
        assert len(set(places)) == len(places)


@pytest.fixture
def added():
    """A chart and a table that are registered as those of files and of other packages are."""
    CHARTS.register("added")(Part("memory", lambda collection: [go.Figure(layout={"title": "An added chart"})], -1))
    table = Table("added", "An added table", "", ("a", "b"), (("1", "2"),))
    TABLES.register("added")(Part("memory", lambda collection: [table], 9))
    yield
    CHARTS.unregister("added")
    TABLES.unregister("added")


def test_a_new_part_is_shown_in_its_place(added, record, collection):
    runs = collection(record(3.0))
    assert [table.key for table in tables(runs)] == ["summary", "memory", "added"]
    shown = page(runs, [], [])
    assert "An added table" in shown
    section = next(section for section in SECTIONS if section.key == "memory")
    assert [chart.layout.title.text for chart in parts_of(section, CHARTS, runs)] == ["An added chart", None]
    assert shown.count("An added chart") == 1
