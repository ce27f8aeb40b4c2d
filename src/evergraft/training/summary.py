"""A finished run in a few lines that a person reads."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from evergraft.runs.result import RunResult, TrainingBytes


def summarise(result: RunResult) -> None:
    """Print losses beside what they must beat, costs beside the dense twin's, and where the run is."""
    console = Console()
    console.print(_losses(result), _costs(result))
    explored = "" if result.explored is None else f", {result.explored:.1%} of all blocks explored"
    console.print(
        f"{result.steps:,} steps, {result.tokens:,} tokens, {result.seconds:,.0f} s of training{explored}\n"
        f"The run is in {result.run}; try: evergraft export {result.run} my-bert",
        soft_wrap=True,
    )


def _losses(result: RunResult) -> Table:
    table = Table("validation", "trained", "untrained", "to beat", title="Loss, nats")
    trained, untrained = result.validation_mlm_loss, result.untrained_validation_mlm_loss
    table.add_row("MLM loss", _nats(trained), _nats(untrained), f"{_nats(result.unigram_entropy)} (unigram entropy)")
    trained, untrained = result.validation_nsp_loss, result.untrained_validation_nsp_loss
    table.add_row("NSP loss", _nats(trained), _nats(untrained), "0.6931 (a coin)")
    return table


def _costs(result: RunResult) -> Table:
    table = Table("encoder", "this model", "its dense twin", "ratio", title=f"Cost at density {result.density:.4f}")
    costs = {"FLOPs a sequence": (result.flops_per_sequence or 0, result.flops_per_sequence_dense or 0)}
    for kind in TrainingBytes.model_fields:
        costs[f"bytes of {kind}"] = getattr(result.bytes, kind), getattr(result.bytes_dense, kind)
    for name, (mine, dense) in costs.items():
        table.add_row(name, f"{mine:,.0f}", f"{dense:,.0f}", f"{mine / dense:.3f}" if dense else "-")
    return table


def _nats(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
