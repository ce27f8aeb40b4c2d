"""Bytes of the encoder's linear layers in training."""

from __future__ import annotations

import plotly.graph_objects as go

from evergraft.study.charts._style import styled
from evergraft.study.collection import Collection, Configuration
from evergraft.study.sections import Part

COLOURS = {"weights": "#0f5257", "gradients": "#2dd4bf", "optimizer": "#fbbf24", "indices": "#b45309"}


def memory(collection: Collection) -> go.Figure:
    """Bytes of weights, gradients, moments and indices, stacked, a bar for each size among the configurations."""
    figure = go.Figure()
    by_size = list({repr(one.first.result.bytes): one for one in collection.configurations}.values())
    names = [_sized(one) for one in by_size]
    names = [one.label if names.count(name) > 1 else name for one, name in zip(by_size, names, strict=True)]
    for kind, colour in COLOURS.items():
        sizes = [getattr(one.first.result.bytes, kind) / 1e6 for one in by_size]
        name = "Adam's moments" if kind == "optimizer" else kind
        figure.add_trace(go.Bar(y=names, x=sizes, name=name, orientation="h", marker={"color": colour}))
    styled(figure, "MB of the encoder's linear layers", "")
    figure.update_layout(barmode="stack", height=150 + 30 * len(by_size), hovermode="y unified")
    return figure.update_yaxes(autorange="reversed")


def _sized(one: Configuration) -> str:
    """The part of a configuration's label that decides its bytes."""
    density = "" if one.dense else f" d{one.recipe.density:g}"
    return f"{one.recipe.model.rpartition('/')[2]}{density} {one.block}"


CHART = Part("memory", lambda collection: [memory(collection)])
