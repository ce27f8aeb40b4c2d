"""What sparse configurations cost at the loss of dense ones."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from evergraft.study.charts._style import INK, styled
from evergraft.study.collection import Collection
from evergraft.study.pareto import BYTES, FLOPS, SECONDS, Against, against_dense, timed_costs
from evergraft.study.sections import Part
from evergraft.study.statistics import Estimate

COLOURS = {FLOPS: "#0f5257", SECONDS: "#ea8a1e", BYTES: "#7e22ce"}
TIMED = ("#be123c", "#1d4ed8", "#4d7c0f", "#a16207", "#57534e")  # of costs by timed steps


def ratios(collection: Collection) -> list[go.Figure]:
    """Ratios of every cost at equal loss, with their intervals; no chart where there are none."""
    colours = COLOURS | dict(zip(timed_costs(collection.step_times), TIMED, strict=False))
    rows = against_dense(collection.configurations)
    found = {cost: [(row, ratio) for row in rows if (ratio := row.ratio(cost))] for cost in colours}
    if not any(found.values()):
        return []
    figure = go.Figure()
    for cost, known in found.items():
        figure.add_trace(_trace(known, cost.name, colours[cost]))
    figure.add_vline(x=1, line={"color": INK, "width": 1, "dash": "dash"})
    styled(figure, "cost over that of the dense family at equal loss (below 1 is a win)", "")
    figure.update_layout(height=180 + 34 * len(rows), hovermode="closest", scattermode="group")
    figure.update_xaxes(type="log")
    figure.update_yaxes(autorange="reversed")
    return [figure]


def _trace(known: Sequence[tuple[Against, Estimate]], name: str, colour: str) -> go.Scatter:
    return go.Scatter(
        x=[ratio.mean for _, ratio in known],
        y=[row.configuration.label for row, _ in known],
        mode="markers",
        name=name,
        marker={"color": colour, "size": 11},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [0 if ratio.high is None else ratio.high - ratio.mean for _, ratio in known],
            "arrayminus": [0 if ratio.low is None else ratio.mean - ratio.low for _, ratio in known],
            "thickness": 1.5,
            "width": 4,
        },
        hovertemplate="<b>%{y}</b><br>" + name + " ratio %{x:.3f}<extra></extra>",
    )


CHART = Part("pareto", ratios, place=1)
