"""A finished run in a few lines that a person reads."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def summarise(result: dict[str, Any]) -> None:
    """Print what a run came to: losses against what they must beat, cost against the dense twin, where it is."""
    console = Console()
    console.print(_losses(result), _costs(result))
    explored = "" if result["explored"] is None else f", {result['explored']:.1%} of all blocks explored"
    console.print(
        f"{result['steps']:,} steps, {result['tokens']:,} tokens, {result['seconds']:,.0f} s of training{explored}\n"
        f"The run is in {result['run']}; try: evergraft export {result['run']} my-bert",
        soft_wrap=True,
    )


def _losses(result: dict[str, Any]) -> Table:
    table = Table("validation", "trained", "untrained", "to beat", title="Loss, nats")
    rows = {"MLM": ("mlm", f"{result['unigram_entropy']:.4f} (unigram entropy)"), "NSP": ("nsp", "0.6931 (a coin)")}
    for name, (key, bar) in rows.items():
        trained, untrained = result[f"validation_{key}_loss"], result[f"untrained_validation_{key}_loss"]
        table.add_row(f"{name} loss", f"{trained:.4f}", f"{untrained:.4f}", bar)
    return table


def _costs(result: dict[str, Any]) -> Table:
    table = Table("encoder", "this model", "its dense twin", "ratio", title=f"Cost at density {result['density']:.4f}")
    rows = {"FLOPs a sequence": (result["flops_per_sequence"], result["flops_per_sequence_dense"])}
    rows |= {f"bytes of {kind}": (result["bytes"][kind], dense) for kind, dense in result["bytes_dense"].items()}
    for name, (sparse, dense) in rows.items():
        table.add_row(name, f"{sparse:,.0f}", f"{dense:,.0f}", f"{sparse / dense:.3f}" if dense else "-")
    return table
