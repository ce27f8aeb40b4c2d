"""The break-even chart: how many times faster than dense a sparse layer is, against density, a line for each block."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

from evergraft.files.folders import write_atomically

Figures = dict[str, Any]


def break_even(points: list[tuple[float, float]]) -> float | None:
    """The density at which a sparse layer is as fast as a dense one.

    Between two measurements, the logarithm of the ratio is taken as linear in the logarithm of the density.

    Args:
        points: pairs of a density and the ratio measured there, which is above 1 where sparse is faster.

    Returns:
        The density, or None if the ratio does not cross 1 between the densities measured.

    Example:
        >>> round(break_even([(0.1, 2.0), (0.4, 0.5)]), 3)
        0.2
    """
    ordered = sorted(points)
    for (sparse, high), (dense, low) in pairwise(ordered):
        if high >= 1 > low:
            share = math.log(high) / math.log(high / low)
            return float(sparse * (dense / sparse) ** share)
    return None


def by_block(result: Figures) -> dict[str, list[Figures]]:
    """The measurements in a benchmark's result, for each block in ascending order of density."""
    lines: dict[str, list[Figures]] = {}
    for figures in sorted(result.get("results", [result]), key=lambda figures: figures["density"]):
        lines.setdefault(figures["block"], []).append(figures)
    return lines


def plot(result: Figures, path: Path) -> None:
    """Draw a benchmark's result to one self-contained HTML file, which is replaced at once or not at all."""
    from plotly import graph_objects

    figure = graph_objects.Figure()
    lines = by_block(result)
    for block, points in lines.items():
        density, ratio = [p["density"] for p in points], [p["ratio"] for p in points]
        even = break_even(list(zip(density, ratio, strict=True)))
        name = block if even is None else f"{block}, even at {even:.2f}"
        figure.add_scatter(x=density, y=ratio, name=name, mode="lines+markers")
    density = sorted({point["density"] for points in lines.values() for point in points})
    figure.add_scatter(
        x=density, y=[1 / share for share in density], name="1 / density", line={"dash": "dot", "color": "grey"}
    )
    figure.add_hline(1, line={"color": "grey", "width": 1}, annotation_text="as fast as dense")
    figure.update_layout(
        title=_title(result), xaxis_title="density", yaxis_title="dense time / sparse time", template="plotly_white"
    )
    figure.update_xaxes(type="log")
    figure.update_yaxes(type="log")
    write_atomically(path, figure.to_html(include_plotlyjs=True))


def _title(result: Figures) -> str:
    machine = f"{result['threads']} threads, {result.get('machine', {}).get('processor', '')}".rstrip(", ")
    if result["bench"] == "step":
        return f"A training step of {result['model']}, {result['precision']}, {machine}"
    shape = f"{result['tokens']} tokens, {result['in']} to {result['out']}"
    return f"The three products, {shape}, {result['precision']}, {machine}"
