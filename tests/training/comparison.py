"""What two runs must agree on to count as the same."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file

CLOCK = ("seconds", "tokens_per_second")


def metrics(run: Path) -> list[dict]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in CLOCK} for line in lines]


def differences(run: Path, other: Path) -> list[str]:
    """Names of what differs: weights and topologies bit for bit, metrics but for the clock, the topology log."""
    weights, others = (load_file(folder / "model" / "model.safetensors") for folder in (run, other))
    found = [name for name in weights.keys() | others.keys() if not weights[name].equal(others[name])]
    found += ["metrics.jsonl"] * (metrics(run) != metrics(other))
    found += ["topology.jsonl"] * ((run / "topology.jsonl").read_text() != (other / "topology.jsonl").read_text())
    return found
