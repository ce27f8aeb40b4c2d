"""The charts of a report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from evergraft.evolution.callback import ALL
from evergraft.study.collection import Collection, Configuration
from evergraft.study.pareto import COSTS, EqualLoss, equal_loss, front
from evergraft.study.statistics import Estimate

FAMILY_SCALES = {
    "dense": ["#1f2937", "#9ca3af"],
    "static": ["#b45309", "#fbbf24"],
    "dynamic": ["#0f5257", "#2dd4bf", "#3b82f6", "#1e3a8a"],
}
OTHER_SCALES = [["#7e22ce", "#d8b4fe"], ["#9d174d", "#f9a8d4"], ["#3f6212", "#bef264"], ["#7c2d12", "#fdba74"]]
DASHES = ("solid", "dash", "dot", "dashdot")  # of lines side by side in one family
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "triangle-down", "x", "bowtie")
INK, GRID = "#1f2937", "#e7e5e4"
RATIOS = {  # costs -> name and colour
    "flops_total": ("FLOPs", "#0f5257"),
    "steady_seconds": ("wall-clock", "#ea8a1e"),
    "bytes_total": ("memory", "#7e22ce"),
}
POINTS = 400  # of a line, at most
LABELLED = 12  # names at most that are written beside a family's points
MLM = "MLM loss, nats"


def loss_curves(collection: Collection) -> go.Figure:
    """Loss while training, over steps, FLOPs or seconds."""
    figure = go.Figure()
    styles = _line_styles(collection.configurations)
    lines_by_trace = [_mean_lines(one) for one in collection.configurations]
    for one, lines in zip(collection.configurations, lines_by_trace, strict=True):
        figure.add_trace(
            go.Scatter(
                x=[line["step"] for line in lines],
                y=[line["mlm_loss"] for line in lines],
                name=one.label,
                legendgroup=one.family,
                line=styles[one.label],
                hovertemplate=_hover(one, "step %{x:,}"),
            )
        )
    axes = {
        "step": ("steps", "step %{x:,}"),
        "flops": ("FLOPs of the encoder", "%{x:.4~s} FLOPs"),
        "seconds": ("seconds of training", "%{x:,.1f} s"),
    }
    buttons = [
        {
            "label": title.split()[0],
            "method": "update",
            "args": [
                {
                    "x": [[line[name] for line in lines] for lines in lines_by_trace],
                    "hovertemplate": [_hover(one, place) for one in collection.configurations],
                },
                {"xaxis.title.text": title},
            ],
        }
        for name, (title, place) in axes.items()
    ]
    menu = {"buttons": buttons, "type": "buttons", "direction": "right", "x": 0, "y": 1.12, "xanchor": "left"}
    figure.update_layout(updatemenus=[menu | {"pad": {"t": 0}, "bgcolor": "#ffffff", "bordercolor": GRID}])
    return _styled(figure, "steps", f"training {MLM}")


def loss_against(collection: Collection, cost: str) -> go.Figure:
    """Validation loss against a cost, both logarithmic, with the Pareto front of all dense models, and of each family
    that is not dense, for each of the conditions they were trained under: models of others are not compared.

    Args:
        cost: one of `COSTS`.
    """
    figure = go.Figure()
    symbols = _symbols(collection.configurations)
    families = _families(collection.configurations)
    colours = {family: _scale(family, list(families))[0] for family in families}
    for name, members in _fronted(collection.configurations).items():
        ends = front([(one.estimate(cost).mean, one.loss.mean) for one in members])
        line = {"color": colours[members[0].family], "width": 2, "dash": "solid" if members[0].dense else "dot"}
        figure.add_trace(
            go.Scatter(x=[p[0] for p in ends], y=[p[1] for p in ends], mode="lines", line=line, name=name, opacity=0.7)
        )
    for family, members in families.items():
        colour = colours[family]
        points = [(one.estimate(cost).mean, one.loss.mean) for one in members]
        markers = _points(family, members, points, colour, [symbols[one.block] for one in members])
        names = _names(members)
        if len(list(filter(None, names))) <= LABELLED:
            markers.update(mode="markers+text", text=names, textposition="middle right", cliponaxis=False)
        figure.add_trace(markers)
    _styled(figure, COSTS[cost], f"validation {MLM}")
    figure.update_xaxes(type="log", nticks=8, tickformat=".4~s")
    figure.update_yaxes(type="log", nticks=8)
    return figure


def _fronted(configurations: Sequence[Configuration]) -> dict[str, list[Configuration]]:
    """The configurations that one front goes through, by its name."""
    lines: dict[tuple[str, str], list[Configuration]] = defaultdict(list)
    for one in configurations:
        name = "dense, interpolated" if one.dense else f"{one.family}, Pareto front"
        lines[name, repr(one.conditions)].append(one)
    conditions = [members[0].conditions for members in lines.values()]
    varied = [name for name in conditions[0] if len({repr(each[name]) for each in conditions}) > 1]
    return {
        ", ".join([name, *(f"{fact.replace('_', ' ')} {members[0].conditions[fact]}" for fact in varied)]): members
        for (name, _), members in lines.items()
    }


def ratios(collection: Collection) -> go.Figure | None:
    """FLOP, wall-clock and memory ratios at equal loss, with their intervals; None where there are none."""
    rows = [row for row in equal_loss(collection.configurations) if any(row.ratios.values())]
    if not rows:
        return None
    figure = go.Figure()
    for cost in COSTS:
        name, colour = RATIOS[cost]
        known = [(row, ratio) for row in rows if (ratio := row.ratios[cost]) is not None]
        figure.add_trace(_ratio_trace(known, name, colour))
    figure.add_vline(x=1, line={"color": INK, "width": 1, "dash": "dash"})
    _styled(figure, "cost over that of the dense family at equal loss (below 1 is a win)", "")
    figure.update_layout(height=180 + 34 * len(rows), hovermode="closest", scattermode="group")
    figure.update_xaxes(type="log")
    figure.update_yaxes(autorange="reversed")
    return figure


def exploration(collection: Collection) -> go.Figure | None:
    """Explored degrees of freedom over time; None without an evolving run."""
    return _over_time(collection, _explored, "explored degrees of freedom")


def churn(collection: Collection) -> go.Figure | None:
    """The removed-new ratio of every update over time; None without an evolving run."""
    return _over_time(collection, _removed_new, "removed-new ratio")


def exploration_against_loss(collection: Collection) -> go.Figure | None:
    """Loss against exploration, a point a run; None with fewer than three sparse runs."""
    members = [one for one in collection.configurations if one.records[0].result["explored"] is not None]
    if sum(len(one.records) for one in members) < 3:
        return None
    figure = go.Figure()
    colours = _colours(collection.configurations)
    for one in members:
        figure.add_trace(
            go.Scatter(
                x=list(one.by_seed("explored").values()),
                y=list(one.losses.values()),
                mode="markers",
                name=one.label,
                marker={"color": colours[one.label], "size": 10, "line": {"color": "white", "width": 1}},
                hovertemplate=f"<b>{one.label}</b><br>explored %{{x:.3f}}, %{{y:.4f}} nats<extra></extra>",
            )
        )
    figure = _styled(figure, "explored degrees of freedom", f"validation {MLM}")
    return figure.update_layout(hovermode="closest")


def memory(collection: Collection) -> go.Figure:
    """Bytes of weights, gradients, moments and indices, stacked, by configuration."""
    figure = go.Figure()
    by_size = list({repr(one.records[0].result["bytes"]): one for one in collection.configurations}.values())
    names = [_sized(one) for one in by_size]
    names = [one.label if names.count(name) > 1 else name for one, name in zip(by_size, names, strict=True)]
    colours = {"weights": "#0f5257", "gradients": "#2dd4bf", "optimizer": "#fbbf24", "indices": "#b45309"}
    for kind, colour in colours.items():
        sizes = [one.records[0].result["bytes"][kind] / 1e6 for one in by_size]
        name = "Adam's moments" if kind == "optimizer" else kind
        figure.add_trace(go.Bar(y=names, x=sizes, name=name, orientation="h", marker={"color": colour}))
    _styled(figure, "MB of the encoder's linear layers", "")
    figure.update_layout(barmode="stack", height=150 + 30 * len(by_size), hovermode="y unified")
    return figure.update_yaxes(autorange="reversed")


def _points(
    family: str,
    members: Sequence[Configuration],
    points: Sequence[tuple[float, float]],
    colour: str,
    symbols: list[str],
) -> go.Scatter:
    intervals = [_half(one.loss) for one in members]
    return go.Scatter(
        x=[cost for cost, _ in points],
        y=[loss for _, loss in points],
        mode="markers",
        name=family,
        error_y={"type": "data", "array": intervals, "thickness": 1.2, "width": 3, "color": colour},
        marker={"color": colour, "size": 11, "symbol": symbols, "line": {"color": "white", "width": 1}},
        textfont={"size": 11, "color": colour},
        customdata=[[one.label, one.loss.text(4)] for one in members],
        hovertemplate="<b>%{customdata[0]}</b><br>%{customdata[1]} nats at %{x:.3g}<extra></extra>",
    )


def _ratio_trace(known: Sequence[tuple[EqualLoss, Estimate]], name: str, colour: str) -> go.Scatter:
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


def _over_time(
    collection: Collection, series: Callable[[Configuration], list[tuple[int, float]]], title: str
) -> go.Figure | None:
    figure = go.Figure()
    styles = _line_styles(collection.configurations)
    for one in collection.configurations:
        points = series(one)
        if points and one.records[0].topology:
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
        return None
    _styled(figure, "steps", title)
    return figure.update_yaxes(rangemode="tozero")


def _explored(one: Configuration) -> list[tuple[int, float]]:
    return [(line["step"], line["explored"]) for line in _overall(one)]


def _removed_new(one: Configuration) -> list[tuple[int, float]]:
    return [
        (line["step"], line["removed_new_ratio"]) for line in _overall(one) if line["removed_new_ratio"] is not None
    ]


def _overall(one: Configuration) -> list[dict[str, Any]]:
    """Of the first seed, each update's line for all layers together."""
    return [line for line in one.records[0].topology if line["layer"] == ALL]


def _mean_lines(one: Configuration) -> list[dict[str, Any]]:
    """The training lines of metrics.jsonl, averaged over the seeds where all logged at the same steps."""
    series = [[line for line in record.metrics if "mlm_loss" in line] for record in one.records]
    steps = [[line["step"] for line in lines] for lines in series]
    if any(other != steps[0] for other in steps):
        series = series[:1]
    keys = ("step", "flops", "seconds", "mlm_loss")
    return _thinned(
        [{key: float(np.mean([line[key] for line in lines])) for key in keys} for lines in zip(*series, strict=True)]
    )


def _thinned(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    if len(lines) <= POINTS:
        return list(lines)
    return [lines[index] for index in np.linspace(0, len(lines) - 1, POINTS).round().astype(int)]


def _families(configurations: Sequence[Configuration]) -> dict[str, list[Configuration]]:
    families: dict[str, list[Configuration]] = defaultdict(list)
    for one in configurations:
        families[one.family].append(one)
    return families


def _scale(family: str, families: Sequence[str]) -> list[str]:
    others = [name for name in families if name not in FAMILY_SCALES]
    return FAMILY_SCALES.get(family) or OTHER_SCALES[others.index(family) % len(OTHER_SCALES)]


def _colours(configurations: Sequence[Configuration]) -> dict[str, str]:
    """A shade of its family's colour for each configuration, by label."""
    families = _families(configurations)
    colours: dict[str, str] = {}
    for family, members in families.items():
        shades = sample_colorscale(_scale(family, list(families)), np.linspace(0, 1, max(2, len(members))))
        colours |= {one.label: shade for one, shade in zip(members, shades, strict=False)}
    return colours


def _line_styles(configurations: Sequence[Configuration]) -> dict[str, dict[str, Any]]:
    """A colour and a dash for each configuration, by label."""
    colours = _colours(configurations)
    return {
        one.label: {"color": colours[one.label], "width": 1.8, "dash": dash}
        for members in _families(configurations).values()
        for one, dash in zip(members, cycle(DASHES), strict=False)
    }


def _symbols(configurations: Sequence[Configuration]) -> dict[str, str]:
    """A marker for each block shape."""
    blocks = dict.fromkeys(one.block for one in configurations)
    return {block: SYMBOLS[index % len(SYMBOLS)] for index, block in enumerate(blocks)}


def _names(members: Sequence[Configuration]) -> list[str]:
    """What is written beside a family's points, whose colour tells the family: two spaces, model, and block; of several
    that would read alike, the one of the least loss has it.
    """
    models = {one.recipe.model for one in members}
    told = {model: model.rpartition("/")[2] for model in models}
    told = told if len(set(told.values())) == len(models) else {model: model for model in models}
    names = [f"  {told[one.recipe.model]}" + f" {one.block}" * (not one.dense) for one in members]
    best: dict[str, Configuration] = {}
    for one, name in zip(members, names, strict=True):
        best[name] = min(best.get(name, one), one, key=lambda each: each.loss.mean)
    return [name if best[name] is one else "" for one, name in zip(members, names, strict=True)]


def _sized(one: Configuration) -> str:
    """What of a configuration decides its bytes."""
    density = "" if one.recipe.density == 1 else f" d{one.recipe.density:g}"
    return f"{one.recipe.model.rpartition('/')[2]}{density} {one.block}"


def _hover(one: Configuration, place: str) -> str:
    """Args: place: where on the horizontal axis, as plotly's templates write it."""
    return f"<b>{one.label}</b><br>{place}: %{{y:.4f}} nats<extra></extra>"


def _half(estimate: Estimate) -> float:
    return 0.0 if estimate.high is None else estimate.high - estimate.mean


def _styled(figure: go.Figure, x: str, y: str) -> go.Figure:
    figure.update_layout(
        template="plotly_white",
        font={"family": "Inter, system-ui, sans-serif", "size": 13, "color": INK},
        height=460,
        margin={"l": 70, "r": 20, "t": 50, "b": 60},
        hovermode="x unified" if y.startswith("training") else "closest",
        hoverlabel={"bgcolor": "white"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#a8a29e", "activecolor": INK},
        showlegend=True,
        legend={"font": {"size": 11}, "tracegroupgap": 4},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    figure.update_xaxes(title=x, gridcolor=GRID, zeroline=False, linecolor="#a8a29e")
    figure.update_yaxes(title=y, gridcolor=GRID, zeroline=False, automargin=True)
    return figure
