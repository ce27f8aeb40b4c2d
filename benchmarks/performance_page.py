"""Draw the tables of docs/performance.md from the newest results of benchmarks/results/ (made by benchmarks/cpu.sh)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "performance.md"
Result = dict[str, Any]


def newest(bench: str, *settings: str) -> list[Result]:
    """The last result of each combination of settings, in the order they were first made."""
    file = RESULTS / f"{bench}.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    return list({tuple(result[name] for name in settings): result for result in results}.values())


def products() -> list[str]:
    """Ratios of the three products, a row a block and setting."""
    lines: list[str] = []
    for result in newest("products", "precision", "threads", "tokens", "in", "out"):
        lines += [
            "\n| block | precision | threads | x nn.Linear | x fastest dense | GFLOP/s | of the peak | tier |",
            "|" + "---|" * 8,
        ]
        for measured in result.get("results", [result]):
            lines.append(
                f"| {measured['block']} | {result['precision']} | {result['threads']} | {measured['ratio']:.1f} | "
                f"{measured['ratio_fastest_dense']:.1f} | {measured['gflops']:.0f} | {measured['peak_share']:.0%} | "
                f"{measured['tier']} |"
            )
        lines.append(f"\n{made(result)}")
    return lines


def steps() -> list[str]:
    """Ratios of whole steps, a row a model and precision."""
    results = newest("step", "model", "precision", "threads")
    lines = [
        "| model | block | precision | ms | x lean dense | x fastest dense | x stock at its best | a topology update |",
        "|" + "---|" * 8,
    ]
    lines += [
        f"| {result['model']} | {result['block']} | {result['precision']} | {result['seconds'] * 1e3:.0f} | "
        f"{result['ratio']:.2f} | {beside_stock(result, 'ratio_best_dense')} | {beside_stock(result, 'ratio_stock')} | "
        f"{update(result)} |"
        for result in results
    ]
    return lines + [f"\n{made(result)}" for result in results]


def beside_stock(result: Result, ratio: str) -> str:
    """A ratio that needs all rivals; a dash where only the lean dense step of the same precision ran."""
    return "-" if result["ratio_stock"] is None else f"{result[ratio]:.2f}"


def update(result: Result) -> str:
    """The largest topology update, and its share of the time of 100 steps and itself."""
    seconds, steps = result["topology_update"]["seconds"], result["topology_update"]["steps"]
    return f"{seconds * 1e3:.0f} ms ({steps / (100 + steps):.2%})"


def profiles() -> list[str]:
    """Where the time of a step goes, in ms: a table a model and precision."""
    lines: list[str] = []
    for result in newest("profile", "model", "precision", "threads"):
        columns = result["steps"]
        parts = next(iter(columns.values()))["parts"]
        lines += [f"\n| {result['model']}, ms | {' | '.join(columns)} |", "|" + "---|" * (len(columns) + 1)]
        for part in parts:
            cells = (f"{c['parts'][part] * 1e3:.0f} ({c['parts'][part] / c['seconds']:.0%})" for c in columns.values())
            lines.append(f"| {part} | {' | '.join(cells)} |")
        lines.append("| all | " + " | ".join(f"{c['seconds'] * 1e3:.0f}" for c in columns.values()) + " |")
        lines.append(f"\n{made(result)}")
    return lines


def made(result: Result) -> str:
    """What made a result."""
    machine = result["machine"]
    command = " ".join(["evergraft", *machine["command"][1:]])
    return (
        f"`{command}`: commit {str(machine['commit'])[:12]}, {machine['processor']} ({machine['cpu_capability']}), "
        f"torch {machine['versions']['torch']}, seed {result['seed']}."
    )


def redraw(page: str, name: str, draw: Callable[[], list[str]]) -> str:
    """Replace what stands between the markers of a table."""
    begin, end = f"<!-- {name}: drawn by benchmarks/performance_page.py -->", "<!-- end -->"
    lines = draw()
    table = "\n".join(lines) if any("evergraft" in line for line in lines) else "Not measured yet."
    return re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n\n{table}\n\n{end}", page, flags=re.S)


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    for name, draw in (("products", products), ("steps", steps), ("profiles", profiles)):
        text = redraw(text, name, draw)
    PAGE.write_text(text, encoding="utf-8")
