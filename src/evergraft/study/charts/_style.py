"""What charts look like: the colours of families, the dashes of lines, the axes of all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from evergraft.study.collection import Configuration

MLM = "MLM loss, nats"
INK, GRID = "#1f2937", "#e7e5e4"
FAMILY_SCALES = {
    "dense": ["#1f2937", "#9ca3af"],
    "static": ["#b45309", "#fbbf24"],
    "dynamic": ["#0f5257", "#2dd4bf", "#3b82f6", "#1e3a8a"],
}
OTHER_SCALES = [["#7e22ce", "#d8b4fe"], ["#9d174d", "#f9a8d4"], ["#3f6212", "#bef264"], ["#7c2d12", "#fdba74"]]
DASHES = ("solid", "dash", "dot", "dashdot")  # tell the lines of one family apart


def by_family(configurations: Sequence[Configuration]) -> dict[str, list[Configuration]]:
    """The configurations of each family."""
    families: dict[str, list[Configuration]] = defaultdict(list)
    for one in configurations:
        families[one.family].append(one)
    return families


def scale(family: str, families: Sequence[str]) -> list[str]:
    """The shades of a family's colour.

    Args:
        family: its name.
        families: the names of all families of the chart, so that those of a study's own differ from each other.
    """
    others = [name for name in families if name not in FAMILY_SCALES]
    return FAMILY_SCALES.get(family) or OTHER_SCALES[others.index(family) % len(OTHER_SCALES)]


def colours(configurations: Sequence[Configuration]) -> dict[str, str]:
    """A shade of its family's colour for each configuration, by label."""
    families = by_family(configurations)
    found: dict[str, str] = {}
    for family, members in families.items():
        shades = sample_colorscale(scale(family, list(families)), np.linspace(0, 1, max(2, len(members))))
        found |= {one.label: shade for one, shade in zip(members, shades, strict=False)}
    return found


def line_styles(configurations: Sequence[Configuration]) -> dict[str, dict[str, Any]]:
    """A colour and a dash for each configuration, by label."""
    shades = colours(configurations)
    return {
        one.label: {"color": shades[one.label], "width": 1.8, "dash": dash}
        for members in by_family(configurations).values()
        for one, dash in zip(members, cycle(DASHES), strict=False)
    }


def styled(figure: go.Figure, x: str, y: str) -> go.Figure:
    """The figure, with the style that all charts share and titles for its axes."""
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
