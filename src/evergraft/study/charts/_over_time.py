"""Charts of how topologies change over the steps of training."""

from __future__ import annotations

from collections.abc import Callable

import plotly.graph_objects as go

from evergraft.evolution.log import ALL
from evergraft.study.charts._style import line_styles, styled
from evergraft.study.collection import Collection
from evergraft.study.record import LoggedUpdate


def over_time(collection: Collection, number: Callable[[LoggedUpdate], float | None], title: str) -> list[go.Figure]:
    """A number of each update over the steps of training, of the first seed; no chart without an evolving run.

    Args:
        collection: the runs; each configuration is a line of the chart.
        number: gives the number of an update, for all layers together; None leaves the update without a point.
        title: what the number is, for the axis.
    """
    figure = go.Figure()
    styles = line_styles(collection.configurations)
    for one in collection.configurations:
        overall = [update for update in one.first.logged_updates if update.layer == ALL]
        points = [(update.step, value) for update in overall if (value := number(update)) is not None]
        if points:
            figure.add_trace(
                go.Scatter(
                    x=[step for step, _ in points],
                    y=[value for _, value in points],
                    name=one.label,
                    line=styles[one.label],
                    hovertemplate=f"<b>{one.label}</b><br>step %{{x:,}}: %{{y:.3f}}<extra></extra>",
                )
            )
    if not figure.data:
        return []
    styled(figure, "steps", title)
    return [figure.update_yaxes(rangemode="tozero")]
