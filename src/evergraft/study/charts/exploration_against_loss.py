"""Loss against exploration."""

from __future__ import annotations

import plotly.graph_objects as go

from evergraft.study.charts._style import MLM, colours, styled
from evergraft.study.collection import Collection
from evergraft.study.sections import Part


def exploration_against_loss(collection: Collection) -> list[go.Figure]:
    """Validation loss against explored degrees of freedom, with a point for each run.

    There is no chart with fewer than three sparse runs.
    """
    members = [one for one in collection.configurations if one.first.result.explored is not None]
    if sum(len(one.records) for one in members) < 3:
        return []
    figure = go.Figure()
    shades = colours(collection.configurations)
    for one in members:
        figure.add_trace(
            go.Scatter(
                x=[record.result.explored for record in one.records],
                y=list(one.losses.values()),
                mode="markers",
                name=one.label,
                marker={"color": shades[one.label], "size": 10, "line": {"color": "white", "width": 1}},
                hovertemplate=f"<b>{one.label}</b><br>explored %{{x:.3f}}, %{{y:.4f}} nats<extra></extra>",
            )
        )
    figure = styled(figure, "explored degrees of freedom", f"validation {MLM}")
    return [figure.update_layout(hovermode="closest")]


CHART = Part("exploration", exploration_against_loss, place=2)
