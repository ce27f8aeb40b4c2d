"""Loss while training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from evergraft.study.charts._style import GRID, MLM, line_styles, styled
from evergraft.study.collection import Collection, Configuration
from evergraft.study.record import LoggedSteps
from evergraft.study.sections import Part

POINTS = 400  # in a line, at most
AXES = {  # a field of LoggedSteps -> the axis's title, and a place on it in plotly's templates
    "step": ("steps", "step %{x:,}"),
    "flops": ("FLOPs of the encoder", "%{x:.4~s} FLOPs"),
    "seconds": ("seconds of training", "%{x:,.1f} s"),
}


def loss_curves(collection: Collection) -> go.Figure:
    """Training loss of every configuration over steps, FLOPs or seconds, which buttons choose."""
    figure = go.Figure()
    styles = line_styles(collection.configurations)
    lines_by_trace = [_mean_lines(one) for one in collection.configurations]
    for one, lines in zip(collection.configurations, lines_by_trace, strict=True):
        figure.add_trace(
            go.Scatter(
                x=[line.step for line in lines],
                y=[line.mlm_loss for line in lines],
                name=one.label,
                legendgroup=one.family,
                line=styles[one.label],
                hovertemplate=_hover(one, AXES["step"][1]),
            )
        )
    buttons = [
        {
            "label": title.split()[0],
            "method": "update",
            "args": [
                {
                    "x": [[getattr(line, name) for line in lines] for lines in lines_by_trace],
                    "hovertemplate": [_hover(one, place) for one in collection.configurations],
                },
                {"xaxis.title.text": title},
            ],
        }
        for name, (title, place) in AXES.items()
    ]
    menu = {"buttons": buttons, "type": "buttons", "direction": "right", "x": 0, "y": 1.12, "xanchor": "left"}
    figure.update_layout(updatemenus=[menu | {"pad": {"t": 0}, "bgcolor": "#ffffff", "bordercolor": GRID}])
    return styled(figure, "steps", f"training {MLM}")


def _mean_lines(one: Configuration) -> list[LoggedSteps]:
    """The log of training averaged over the seeds, or of the first seed where not all logged at the same steps."""
    logs = [record.logged_steps for record in one.records]
    at = [[line.step for line in lines] for lines in logs]
    if any(other != at[0] for other in at):
        logs = logs[:1]
    return _thinned(
        [
            LoggedSteps(*(float(np.mean([line[field] for line in lines])) for field in range(len(LoggedSteps._fields))))  # type: ignore[arg-type]
            for lines in zip(*logs, strict=True)
        ]
    )


def _thinned(lines: Sequence[LoggedSteps]) -> list[LoggedSteps]:
    if len(lines) <= POINTS:
        return list(lines)
    return [lines[index] for index in np.linspace(0, len(lines) - 1, POINTS).round().astype(int)]


def _hover(one: Configuration, place: str) -> str:
    """The text that a point shows under the pointer.

    Args:
        one: the configuration.
        place: where the point lies on the horizontal axis, in plotly's templates.
    """
    return f"<b>{one.label}</b><br>{place}: %{{y:.4f}} nats<extra></extra>"


CHART = Part("curves", lambda collection: [loss_curves(collection)])
