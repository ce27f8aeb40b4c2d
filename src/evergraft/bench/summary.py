"""What a benchmark prints for people: a table for each measurement."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from evergraft.bench.chart import break_even, by_block
from evergraft.bench.rivals import PRODUCTS

Figures = dict[str, Any]


def print_products(result: Figures) -> None:
    """Print the figures of `evergraft bench products`."""
    console = Console()
    for figures in result.get("results", [result]):
        console.print(_products_table(figures))
        for rival, facts in figures["rivals"].items():
            for reason in dict.fromkeys(facts["missing"].values()):
                without = ", ".join(name for name, why in facts["missing"].items() if why == reason)
                console.print(f"{rival} has no {without}: {reason}", style="dim")
    _print_break_even(console, result)


def _products_table(figures: Figures) -> Table:
    table = Table(
        "ms",
        *(name.replace("_", " ") for name in PRODUCTS),
        "all three",
        "over sparse",
        title=f"{figures['block']} at density {figures['density']:.4g}: {figures['ratio']:.2f} x nn.Linear's speed, "
        f"{figures['ratio_fastest_dense']:.2f} x {figures['fastest_dense']}'s",
        caption=_achieved(figures),
    )
    ours = {name: figures["products"][name]["seconds"] for name in PRODUCTS}
    table.add_row("sparse", *_milliseconds(ours), _millisecond(figures["seconds"]), "1.00")
    for rival, facts in figures["rivals"].items():
        ratio = "" if facts["ratio"] is None else f"{facts['ratio']:.2f}"
        table.add_row(rival, *_milliseconds(facts["products"]), _millisecond(facts["seconds"]), ratio)
    return table


def print_step(result: Figures) -> None:
    """Print the figures of `evergraft bench step`."""
    console = Console()
    for figures in result.get("results", [result]):
        table = Table(
            "step",
            "ms",
            "over sparse",
            title=f"{result['model']}, {figures['block']} at density {figures['density']:.4g}",
            caption=_achieved(figures),
        )
        table.add_row(f"sparse {result['precision']}", _millisecond(figures["seconds"]), "1.00")
        for rival, facts in figures["rivals"].items():
            table.add_row(rival, _millisecond(facts["seconds"]), f"{facts['ratio']:.2f}")
        console.print(table)
        console.print(f"{figures['tokens_per_second']:,.0f} tokens/s; {_update(figures['topology_update'])}")
    _print_break_even(console, result)


def print_profile(result: Figures) -> None:
    """Print the figures of `evergraft bench profile`."""
    steps = result["steps"]
    table = Table("ms, share of the step", *steps, title=f"{result['model']}, {result['threads']} threads")
    parts = next(iter(steps.values()))["parts"]
    for part in parts:
        table.add_row(part, *(_part(figures["parts"][part], figures["seconds"]) for figures in steps.values()))
    table.add_section()
    table.add_row("all", *(_millisecond(figures["seconds"]) for figures in steps.values()))
    Console().print(table)


def _part(seconds: float, total: float) -> str:
    return f"{seconds * 1e3:.1f} ({seconds / total:.0%})" if seconds else ""


def _update(figures: Figures) -> str:
    return f"the largest topology update takes {figures['seconds'] * 1e3:.1f} ms, {figures['steps']:.2f} steps"


def _achieved(figures: Figures) -> str:
    tier = f" ({figures['tier']})" if figures["tier"] else ""
    peak = f"{figures['peak']['gflops']:.0f} GFLOP/s, {figures['peak']['by']}"
    return (
        f"backend {figures['backend']}{tier}: {figures['gflops']:.0f} GFLOP/s, {figures['peak_share']:.0%} of the "
        f"measured peak ({peak}); {figures['bytes_ratio']:.3f} of dense bytes"
    )


def _milliseconds(seconds: dict[str, float]) -> list[str]:
    return [_millisecond(seconds.get(name)) for name in PRODUCTS]


def _millisecond(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e3:.2f}"


def _print_break_even(console: Console, result: Figures) -> None:
    for block, points in by_block(result).items():
        if len(points) > 1:
            even = break_even([(point["density"], point["ratio"]) for point in points])
            text = "lies outside the densities measured" if even is None else f"is at density {even:.2f}"
            console.print(f"break-even of {block} {text}")
