"""Draw the pictures of docs/results.md from results that are checked in.

    python docs/figures.py docs/figures

reads studies/results/*.csv and benchmarks/results/**/*.json, and writes one SVG file a picture, the same bytes every
time. Needs kaleido (`pip install 'evergraft[docs]'`) and a Chromium or Chrome, which kaleido finds by itself.
"""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
STUDIES, BENCHMARKS = ROOT / "studies" / "results", ROOT / "benchmarks" / "results"
RUNS = ("pareto", "static-dynamic-mini", "mini", "small")  # of two runs of one configuration and seed, the first counts
STEPS = 6000  # of each of these runs
MODELS = {"l2-h32": "h=32", "l2-h64": "h=64", "tiny": "Tiny", "mini": "Mini", "small": "Small"}

INK, GRID, DENSE, FASTER_DENSE = "#1f2937", "#e5e7eb", "#111827", "#9ca3af"
EVOLVING, FIXED = "#0072B2", "#D55E00"  # colours of Okabe and Ito, which colour-blind readers can tell apart
BLOCKS = {"1x1": ("#0072B2", "circle"), "16x1": ("#D55E00", "diamond"), "16x16": ("#009E73", "square")}
PLACES = {  # of a model's name: which end of the text lies at the point, and its shift to the right and up in pixels
    "above right": ("left", 7, 10),
    "right": ("left", 20, 12),
    "below": ("right", 10, -22),
    "below left": ("right", -7, -10),
}
FONT = "Arial, 'Liberation Sans', Helvetica, sans-serif"
ONEDNN = "lean dense (oneDNN) fp32"


class Model(NamedTuple):
    """What the seeds of one configuration share; density is the one got, to four digits."""

    family: str  # dense, static or dynamic
    name: str
    block: str
    density: float


class Point(NamedTuple):
    """One configuration in a picture: a cost, and the mean and 95 % half-interval of the loss over its seeds."""

    cost: float
    loss: float
    half: float
    name: str


Runs = dict[Model, dict[int, dict[str, str]]]  # by seed, a row of a report's CSV file
Paces = dict[tuple[str, str, float, str], float]  # (model, block or rival, density, precision): milliseconds a step


def read_runs() -> Runs:
    """The runs of RUNS, by configuration and seed."""
    runs: Runs = defaultdict(dict)
    for name in RUNS:
        with (STUDIES / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                model = Path(row["model"]).stem
                key = Model(row["family"], model, row["block"], round(float(row["density_got"]), 4))
                runs[key].setdefault(int(row["seed"]), row)
    return dict(runs)


def read_paces(file: str) -> Paces:
    """The fastest step of each model and layer at the last commit at which that model was timed."""
    results = read_results(file)
    last = {result["model"]: _commit(result) for result in results}
    paces: Paces = defaultdict(lambda: math.inf)
    for result in results:
        if _commit(result) != last[result["model"]]:
            continue
        model, precision = Path(result["model"]).stem, result["precision"]
        for timed in result.get("results", [result]):
            steps = {(model, timed["block"], round(timed["density"], 4), precision): timed["seconds"]}
            steps |= {(model, rival, 1.0, rival[-4:]): of["seconds"] for rival, of in timed["rivals"].items()}
            for key, seconds in steps.items():
                paces[key] = min(paces[key], 1e3 * seconds)
    return dict(paces)


def points(runs: Runs, cost: Callable[[Model], float | None], family: str, block: str = "") -> list[Point]:
    """The configurations of a family, and of a block if one is named, that have a cost, by rising cost."""
    found = []
    for model, by_seed in runs.items():
        at = cost(model)
        if at is not None and model.family == family and block in ("", model.block):
            losses = [float(row["validation_mlm_loss"]) for row in by_seed.values()]
            name = MODELS[model.name] + ", density 0.25" * (round(model.density, 2) == 0.25)
            found.append(Point(at, mean(losses), half_interval(losses), name))
    return sorted(found)


def half_interval(values: Sequence[float]) -> float:
    """Half of Student's t interval of the mean, 95 %."""
    return float(stats.t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))


def loss_against_flops() -> go.Figure:
    """Validation loss against FLOPs of the encoder: a panel for each block, the same dense models in all."""
    runs = read_runs()

    def flops(model: Model) -> float:
        return float(next(iter(runs[model].values()))["flops_total"])

    figure = panels(["single weights (1x1)", "blocks of 16x1", "blocks of 16x16"], y="validation MLM loss, nats")
    for column, block in enumerate(BLOCKS, start=1):
        dense, evolving = points(runs, flops, "dense"), points(runs, flops, "dynamic", block)
        fixed = [point._replace(cost=1.16 * point.cost) for point in points(runs, flops, "static", block)]
        add_losses(figure, column, dense, name="dense", colour=DENSE, line="solid")
        add_losses(figure, column, evolving, name="sparse, evolving topology", colour=EVOLVING)
        add_losses(figure, column, fixed, name="sparse, fixed topology", colour=FIXED, symbol="square-open")
        if column == 1:
            add_names(figure, column, dense, DENSE, "above right")
        for point in evolving:
            place = "right" if block == "16x16" else {"Tiny": "below", "Mini": "below left"}.get(point.name, "right")
            add_names(figure, column, [point], EVOLVING, place)
    figure.update_xaxes(type="log", range=[11.75, 15.2], dtick=1, exponentformat="power", title="FLOPs of training")
    return with_loss_axis(figure)


def loss_against_time() -> go.Figure:
    """Validation loss against the time of training: a panel for each machine, with dense models on the same one."""
    runs = read_runs()
    dense_layers = {"dense, nn.Linear": "lean dense fp32", "dense, oneDNN": ONEDNN}
    machines = {
        "epyc-2: AVX-512, fp32": ("step-proxy.json", "fp32", dense_layers),
        "epyc-3: AVX2, fp32": ("avx2/step-proxy.json", "fp32", {"dense, nn.Linear": "lean dense fp32"}),
        "xeon-1: AMX, bf16": ("xeon/step-proxy.json", "bf16", {"dense, nn.Linear": "lean dense bf16"}),
    }
    figure = panels(list(machines), y="validation MLM loss, nats")
    for column, (file, precision, rivals) in enumerate(machines.values(), start=1):
        paces = read_paces(file)
        for name, rival in rivals.items():
            colour, line = (FASTER_DENSE, "dash") if rival == ONEDNN else (DENSE, "solid")
            dense = points(runs, minutes(paces, precision, rival), "dense")
            add_losses(figure, column, dense, name=name, colour=colour, line=line)
        add_names(figure, column, dense, DENSE, "below left")
        for block, (colour, symbol) in BLOCKS.items():
            sparse = points(runs, minutes(paces, precision), "dynamic", block)
            sparse = [point for point in sparse if "density" not in point.name]
            add_losses(figure, column, sparse, name=f"sparse, {block}", colour=colour, symbol=symbol, line="dot")
    ticks = [0.5, 2, 5, 20, 100]
    figure.update_xaxes(type="log", range=[-0.75, 2.3], tickvals=ticks, title="minutes of training")
    return with_loss_axis(figure)


def minutes(paces: Paces, precision: str, rival: str = "") -> Callable[[Model], float | None]:
    """How long a model trains at the pace of its own step, or of a dense rival's; None where none was timed."""

    def cost(model: Model) -> float | None:
        pace = paces.get((model.name, rival or model.block, model.density, precision))
        return None if pace is None else pace * STEPS / 60e3

    return cost


def speed_by_block() -> go.Figure:
    """How many times faster than dense the three products of a layer are at density 0.1, by block, machine and tier."""
    lines = {
        "epyc-2, AVX-512, fp32": ("products.json", "fp32", "avx512bf16", "#0072B2", "circle"),
        "epyc-3, AVX2, fp32": ("avx2/products.json", "fp32", "avx2", "#009E73", "square"),
        "epyc-2, AVX-512, bf16": ("products.json", "bf16", "avx512bf16", "#56B4E9", "circle-open"),
        "xeon-1, AVX-512, fp32": ("xeon/products.json", "fp32", "avx512bf16", "#D55E00", "diamond"),
        "xeon-1, AMX, bf16": ("xeon/products.json", "bf16", "amx", "#E69F00", "diamond-open"),
    }
    blocks = {"1x1": 1, "8x1": 8, "4x4": 16, "16x1": 16, "32x1": 32, "8x8": 64, "16x16": 256, "64x64": 4096}
    figure = panels([""], y="dense time / sparse time")
    for name, (file, precision, tier, colour, symbol) in lines.items():
        ratios: dict[str, float] = {}  # the last measurement counts
        for result in read_results(file):
            if result["threads"] == 1 and result["precision"] == precision:
                timed = [one for one in result["results"] if one["tier"] == tier]
                ratios |= {one["block"]: one["ratio_fastest_dense"] for one in timed}
        drawn = {block: ratios[block] for block in blocks if block in ratios}
        add_speeds(figure, 1, drawn, name=name, colour=colour, symbol=symbol)
    labels = [f"{block}<br>{weights:,}" for block, weights in blocks.items()]
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=list(blocks))
    figure.update_xaxes(tickvals=list(blocks), ticktext=labels, title="block, and the number of its weights")
    figure.update_layout(legend={"orientation": "v", "x": 1.02, "y": 1, "xanchor": "left"}, height=420)
    figure.update_layout(margin={"t": 20, "b": 90})
    return with_speed_axis(figure).update_yaxes(range=[math.log10(0.45), math.log10(10)])


def speed_by_density() -> go.Figure:
    """How many times faster than dense the three products of a layer are, by density, block and precision."""
    figure = panels(["epyc-2: AVX-512, fp32", "epyc-2: AVX-512, bf16"], y="dense time (oneDNN) / sparse time")
    for column, precision in enumerate(("fp32", "bf16"), start=1):
        last = [result for result in read_results("break-even.json") if result["precision"] == precision][-1]["results"]
        ideal = {density: 1 / density for density in (0.05, 1.0)}
        add_speeds(figure, column, ideal, name="1 / density", colour=FASTER_DENSE, symbol="")
        for block, (colour, symbol) in BLOCKS.items():
            timed = {one["density"]: one["ratio_fastest_dense"] for one in last if one["block"] == block}
            add_speeds(figure, column, timed, name=block, colour=colour, symbol=symbol)
    figure.update_xaxes(type="log", tickvals=[0.05, 0.1, 0.2, 0.5, 1], title="density")
    return with_speed_axis(figure)


PICTURES: dict[str, Callable[[], go.Figure]] = {
    "loss-flops": loss_against_flops,
    "loss-time": loss_against_time,
    "speed-block": speed_by_block,
    "speed-density": speed_by_density,
}


def panels(titles: Sequence[str], y: str) -> go.Figure:
    """Empty panels side by side that share a vertical axis."""
    figure = make_subplots(cols=len(titles), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.025)
    figure.update_layout(
        template="plotly_white",
        font={"family": FONT, "size": 15, "color": INK},
        width=900,
        height=480,
        margin={"l": 75, "r": 20, "t": 40, "b": 115},
        legend={"orientation": "h", "x": 0.5, "xanchor": "center", "y": -0.22, "yanchor": "top", "font": {"size": 15}},
        paper_bgcolor="white",
        plot_bgcolor="white",
    )
    figure.update_xaxes(showline=True, linecolor=INK, ticks="outside", gridcolor=GRID, zeroline=False)
    figure.update_yaxes(showline=True, linecolor=INK, gridcolor=GRID, zeroline=False)
    return figure.update_yaxes(title=y, ticks="outside", col=1)


def add_losses(
    figure: go.Figure,
    column: int,
    found: Sequence[Point],
    *,
    name: str,
    colour: str,
    symbol: str = "circle",
    line: str = "",
) -> None:
    """Add points with their intervals, joined if a line's dash is named; the first of a name enters the legend."""
    figure.add_scatter(
        x=[point.cost for point in found],
        y=[point.loss for point in found],
        error_y={"type": "data", "array": [point.half for point in found], "thickness": 1.5, "width": 4},
        name=name,
        showlegend=name not in {trace.name for trace in figure.data},
        mode="lines+markers" if line else "markers",
        line={"dash": line or None, "color": colour, "width": 2},
        marker={"symbol": symbol, "size": 10, "line": {"width": 2, "color": colour}},
        row=1,
        col=column,
    )


def add_names(figure: go.Figure, column: int, found: Sequence[Point], colour: str, place: str) -> None:
    """Write the names of models beside their points.

    Args:
        place: one of `PLACES`.
    """
    anchor, right, up = PLACES[place]
    for point in found:
        figure.add_annotation(
            x=math.log10(point.cost),
            y=math.log10(point.loss),
            text=point.name,
            showarrow=False,
            xanchor=anchor,
            xshift=right,
            yshift=up,
            font={"size": 14, "color": colour},
            row=1,
            col=column,
        )


def add_speeds(
    figure: go.Figure, column: int, ratios: Mapping[Any, float], *, name: str, colour: str, symbol: str
) -> None:
    """Add a line through ratios of time, with points where they were measured: without a symbol none was."""
    figure.add_scatter(
        x=list(ratios),
        y=list(ratios.values()),
        name=name,
        showlegend=name not in {trace.name for trace in figure.data},
        mode="lines+markers" if symbol else "lines",
        line={"dash": "solid" if symbol else "dot", "color": colour, "width": 2},
        marker={"symbol": symbol or None, "size": 10, "line": {"width": 2, "color": colour}},
        row=1,
        col=column,
    )


def with_loss_axis(figure: go.Figure) -> go.Figure:
    """Losses on a logarithmic axis, on which dense models are interpolated along straight lines (docs/method.md)."""
    ticks = [3.9, 4.0, 4.1, 4.2, 4.3, 4.4, 4.6, 4.8]
    ends = [math.log10(3.84), math.log10(4.92)]
    return figure.update_yaxes(type="log", range=ends, tickvals=ticks, tickformat=".1f")


def with_speed_axis(figure: go.Figure) -> go.Figure:
    """Ratios of time on a logarithmic axis, with a line where sparse is as fast as dense."""
    figure.add_hline(1, line={"color": INK, "width": 1.5, "dash": "dash"})
    ticks = [0.5, 1, 2, 4, 8, 16]
    return figure.update_yaxes(type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])


def read_results(name: str) -> list[dict[str, Any]]:
    """The results of `evergraft bench` in a file of benchmarks/results, in the order in which they were measured."""
    results: list[dict[str, Any]] = json.loads((BENCHMARKS / name).read_text(encoding="utf-8"))
    return results


def _commit(result: dict[str, Any]) -> str:
    return str(result["machine"]["commit"]).removesuffix("-dirty")


def save(figure: go.Figure, path: Path) -> None:
    """Write an SVG file, with plotly's random identifiers replaced by a fixed one."""
    for number, trace in enumerate(figure.data):
        trace.uid = f"{number:06x}"
    svg = figure.to_image("svg").decode()
    drawn = re.search(r'id="defs-([0-9a-f]+)"', svg)
    assert drawn, "plotly names its definitions otherwise now"
    path.write_text(svg.replace(drawn[1], path.stem) + "\n", encoding="utf-8")


def main() -> None:
    """Draw all of PICTURES into the folder named on the command line."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        save(draw(), folder / f"{name}.svg")


if __name__ == "__main__":
    main()
