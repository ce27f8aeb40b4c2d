"""A real run three times: compiled on the GPU kernels, the same uncompiled, and on the reference products.

    python benchmarks/gpu_training.py

prints, and adds to the JSON array in --output, the losses and the tokens a second of each (of the second half of the
run, when everything is compiled and tuned); fails if the losses part. The text is this repository's documentation:
the run shows that training works, not what is learnt.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from evergraft.bench.records import append
from evergraft.files.jsonlines import JsonLines
from evergraft.runs.environment import Environment
from evergraft.runs.recipe import Recipe
from evergraft.training.pretrain import pretrain

ROOT = Path(__file__).parents[1]
RUNS = {  # name -> backend, compiled
    "reference": ("dense", False),
    "eager": ("auto", False),
    "compiled": ("auto", True),
}
TOLERANCE = 0.02  # of the loss: bf16 sums in another order, and a topology that follows from them


def train(name: str, settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One run: its losses by step, and its speed."""
    backend, compiled = RUNS[name]
    result = pretrain(Recipe(backend=backend, compile=compiled, **settings), folder / name)
    lines = [line for line in JsonLines(folder / name / "metrics.jsonl") if "loss" in line]
    middle, last = lines[len(lines) // 2 - 1], lines[-1]
    return {
        "losses": {line["step"]: round(line["loss"], 5) for line in lines},
        "validation_mlm_loss": result.validation_mlm_loss,
        "seconds": result.seconds,
        "tokens_per_second": round((last["tokens"] - middle["tokens"]) / (last["seconds"] - middle["seconds"])),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small")
    parser.add_argument("--block", default="16x16")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--output", type=Path)
    settings = vars(parser.parse_args())
    output = settings.pop("output")
    settings |= {
        "corpus": [str(ROOT / "docs"), str(ROOT / "README.md")],
        "vocabulary_size": 1024,
        "learning_rate": 1e-3,
        "updates": 8,
        "dropout": 0.0,
        "log_every": max(1, settings["steps"] // 10),
        "save_every": settings["steps"],
        "validation_sequences": 64,
    }
    with tempfile.TemporaryDirectory() as folder:
        runs = {name: train(name, settings, Path(folder)) for name in RUNS}
    machine = Environment.here().to_dict()
    result = {"bench": "training", **settings, "corpus": "docs, README.md", "runs": runs, "machine": machine}
    print(json.dumps(result))
    if output:
        append(output, result)
    losses = [list(run["losses"].values()) for run in runs.values()]
    apart = max(max(values) / min(values) - 1 for values in zip(*losses, strict=True))
    print(f"the losses of the three runs differ by at most {apart:.2%}", file=sys.stderr)
    return int(not apart < TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
