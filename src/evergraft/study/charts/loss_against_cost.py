"""Validation loss against what training cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import mean

import plotly.graph_objects as go

from evergraft.study.charts._style import MLM, by_family, scale, styled
from evergraft.study.collection import Collection, Configuration
from evergraft.study.facts import spoken
from evergraft.study.pareto import COSTS, Cost, front, timed_costs
from evergraft.study.sections import Part
from evergraft.study.statistics import Estimate

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "triangle-down", "x", "bowtie")
LABELLED = 12  # names at most that are written beside a family's points


def loss_against(collection: Collection, cost: Cost) -> go.Figure:
    """Validation loss against a cost, both logarithmic, of the configurations of which that cost is known.

    Pareto fronts join all dense models, and the models of each family that is not dense, apart for each of the
    conditions that they were trained under: models under unlike conditions are not compared.
    """
    figure = go.Figure()
    means = {one.label: mean(costs.values()) for one in collection.configurations if (costs := cost.by_seed(one))}
    known = [one for one in collection.configurations if one.label in means]
    symbols = _symbols(known)
    families = by_family(known)
    colours = {family: scale(family, list(families))[0] for family in families}
    for name, members in _fronted(known).items():
        ends = front([(means[one.label], one.loss.mean) for one in members])
        line = {"color": colours[members[0].family], "width": 2, "dash": "solid" if members[0].dense else "dot"}
        figure.add_trace(
            go.Scatter(x=[p[0] for p in ends], y=[p[1] for p in ends], mode="lines", line=line, name=name, opacity=0.7)
        )
    for family, members in families.items():
        colour = colours[family]
        points = [(means[one.label], one.loss.mean) for one in members]
        markers = _points(family, members, points, colour, [symbols[one.block] for one in members])
        names = _names(members)
        if len(list(filter(None, names))) <= LABELLED:
            markers.update(mode="markers+text", text=names, textposition="middle right", cliponaxis=False)
        figure.add_trace(markers)
    styled(figure, cost.title, f"validation {MLM}")
    figure.update_xaxes(type="log", nticks=8, tickformat=".4~s")
    figure.update_yaxes(type="log", nticks=8)
    return figure


def _fronted(configurations: Sequence[Configuration]) -> dict[str, list[Configuration]]:
    """The configurations that one front goes through, by the front's name."""
    lines: dict[tuple[str, str], list[Configuration]] = defaultdict(list)
    for one in configurations:
        name = "dense, interpolated" if one.dense else f"{one.family}, Pareto front"
        lines[name, repr(one.conditions)].append(one)
    conditions = [members[0].conditions for members in lines.values()]
    varied = [name for name in conditions[0] if len({repr(each[name]) for each in conditions}) > 1]
    return {
        ", ".join([name, *(f"{spoken(fact)} {members[0].conditions[fact]}" for fact in varied)]): members
        for (name, _), members in lines.items()
    }


def _symbols(configurations: Sequence[Configuration]) -> dict[str, str]:
    """A marker for each block shape."""
    blocks = dict.fromkeys(one.block for one in configurations)
    return {block: SYMBOLS[index % len(SYMBOLS)] for index, block in enumerate(blocks)}


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


def _half(estimate: Estimate) -> float:
    return 0.0 if estimate.high is None else estimate.high - estimate.mean


def _names(members: Sequence[Configuration]) -> list[str]:
    """What is written beside the points of one family: two spaces, the model and, unless it is dense, its block.

    Of several points that would be called alike only the one of the lowest loss has a name.
    """
    models = {one.recipe.model for one in members}
    told = {model: model.rpartition("/")[2] for model in models}
    told = told if len(set(told.values())) == len(models) else {model: model for model in models}
    names = [f"  {told[one.recipe.model]}" + f" {one.block}" * (not one.dense) for one in members]
    best: dict[str, Configuration] = {}
    for one, name in zip(members, names, strict=True):
        best[name] = min(best.get(name, one), one, key=lambda each: each.loss.mean)
    return [name if best[name] is one else "" for one, name in zip(members, names, strict=True)]


def charts(collection: Collection) -> list[go.Figure]:
    """A chart for each cost, those by timed steps included."""
    costs = (*COSTS, *timed_costs(collection.step_times))
    return [loss_against(collection, cost) for cost in costs if any(map(cost.by_seed, collection.configurations))]


CHART = Part("pareto", charts)
