"""The charts of a report, one a file: a new chart is a module here that defines `CHART`, and its test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evergraft.registry import Registry
from evergraft.study.sections import PART, Part

if TYPE_CHECKING:
    import plotly.graph_objects as go

CHARTS: Registry[Part[go.Figure]] = Registry("chart", "evergraft.charts", __name__, attribute="CHART", methods=PART)
