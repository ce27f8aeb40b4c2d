"""A finished run in a few lines that a person reads."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evergraft.errors import EvergraftError
from evergraft.runs.result import RunResult, TrainingBytes
from evergraft.training.fill import MASK, FilledText, fill

LONGEST = 90  # characters of a text that are shown around a masked word


def summarise(result: RunResult, page: Path | None = None) -> None:
    """Print what a run came to.

    These are its losses beside what they must beat, its costs beside the dense twin's, how it fills in a few words of
    text that it has not seen, and where it is.

    Args:
        result: what it came to.
        page: its report, if one was written.
    """
    console = Console()
    console.print(_losses(result), _costs(result))
    if samples := _samples(Path(result.run)):
        console.print(filled_table(samples))
    explored = "" if result.explored is None else f", {result.explored:.1%} of all blocks explored"
    console.print(
        f"{result.steps:,} steps, {result.tokens:,} tokens, {result.seconds:,.0f} s of training{explored}\n"
        f"The run is in {result.run}; try: evergraft fill {result.run} 'a text with a {MASK} word'",
        soft_wrap=True,
        markup=False,
    )
    if page is not None:
        console.print(f"Its report, charts and topologies included, is {page}", soft_wrap=True, markup=False)


def filled_table(filled: list[FilledText]) -> Table:
    """Texts with masked words, the words that were there if they are known, and the likeliest guesses."""
    table = Table("text", "was", "guesses", title="Masked words")
    for one in filled:
        for number, guesses in enumerate(one.guesses):
            said = ", ".join(f"{guess.word} {guess.probability:.0%}" for guess in guesses)
            answer = "-" if one.answers is None else one.answers[number]
            table.add_row(Text(_around(one.text, number)), Text(answer), Text(said))
    return table


def _samples(run: Path) -> list[FilledText]:
    """Some validation inputs, filled in; none where a run that ended long ago has lost its model or its text."""
    try:
        return fill(run)
    except EvergraftError:
        return []


def _around(text: str, number: int) -> str:
    """What stands around a masked word, cut where it is long."""
    parts = text.split(MASK)
    before, after = MASK.join(parts[: number + 1]), MASK.join(parts[number + 1 :])
    half = LONGEST // 2
    shown = ("..." + before[-half:] if len(before) > half else before) + MASK
    return shown + (after[:half] + "..." if len(after) > half else after)


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
