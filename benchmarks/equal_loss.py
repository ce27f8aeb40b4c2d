"""Time and memory of a sparse model over those of the dense one of the same loss, from a study's losses and sizes, and
steps timed alone.

    python benchmarks/equal_loss.py studies/results/pareto.csv benchmarks/results/step-proxy.json

A study's runs share a machine, and their times are not to be compared to a few percent; steps that `evergraft bench
step` times in turn are. Each seed is compared with the dense models of that seed, as in a report (`study/pareto.py`).
Memory is that of the encoder's linear layers in training, by the ledger.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import defaultdict
from pathlib import Path

from evergraft.study.pareto import ratio_at_equal_loss

# What the dense models run on, and the precision of the sparse step beside it. Losses are those of the study, in fp32.
DENSE = {"lean dense fp32": "fp32", "lean dense (oneDNN) fp32": "fp32", "lean dense bf16": "bf16"}
Losses = dict[tuple[str, str, str], dict[int, float]]  # by family, model and block; by seed
Sizes = dict[tuple[str, str, str], int]  # bytes, of the same
Paces = dict[tuple[str, str, str], float]  # milliseconds, by model, block or rival, and precision


def read_runs(path: Path) -> tuple[Losses, Sizes]:
    """Validation MLM losses and bytes in a report's CSV."""
    losses: Losses = defaultdict(dict)
    sizes: Sizes = {}
    with path.open(newline="", encoding="utf-8") as file:
        for run in csv.DictReader(file):
            key = (run["family"], Path(run["model"]).stem, run["block"])
            losses[key][int(run["seed"])] = float(run["validation_mlm_loss"])
            sizes[key] = sum(int(run[f"bytes_{kind}"]) for kind in ("weights", "gradients", "optimizer", "indices"))
    return losses, sizes


def read_paces(path: Path) -> Paces:
    """Steps of every model, the newest of each."""
    paces: Paces = {}
    for result in json.loads(path.read_text(encoding="utf-8")):
        model, precision = Path(result["model"]).stem, result["precision"]
        for figures in result.get("results", [result]):
            paces[model, figures["block"], precision] = figures["seconds"] * 1e3
            for name, rival in figures["rivals"].items():
                if name in DENSE:
                    paces[model, name, DENSE[name]] = rival["seconds"] * 1e3
    return paces


def time_ratio(losses: Losses, paces: Paces, sparse: tuple[str, str, str], rival: str) -> str:
    """Sparse over dense, at equal loss: the mean over seeds and its interval, or why there is none."""
    precision = DENSE[rival]
    pace = paces.get((sparse[1], sparse[2], precision))
    dense = {key[1]: its for key, its in losses.items() if key[0] == "dense" and (key[1], rival, precision) in paces}
    if pace is None or not dense:
        return "not timed"
    return ratio(losses[sparse], pace, [(paces[model, rival, precision], its) for model, its in dense.items()])


def memory_ratio(losses: Losses, sizes: Sizes, sparse: tuple[str, str, str]) -> str:
    """Sparse over dense, at equal loss."""
    dense = [(sizes[key], its) for key, its in losses.items() if key[0] == "dense"]
    return ratio(losses[sparse], sizes[sparse], dense)


def ratio(losses: dict[int, float], cost: float, dense: list[tuple[float, dict[int, float]]]) -> str:
    """A cost over that of the dense models, each with its own and its losses, at equal loss."""
    family = [(dict.fromkeys(its, its_cost), its) for its_cost, its in dense]
    found = ratio_at_equal_loss(dict.fromkeys(losses, cost), losses, family)
    return "outside the dense losses of a seed" if found is None else f"{found.text(2)}, {found.seeds} seeds"


def main() -> None:
    """Print the table."""
    (losses, sizes), paces = read_runs(Path(sys.argv[1])), read_paces(Path(sys.argv[2]))
    print(f"| | MB | over dense | ms a step, fp32 | bf16 | {' | '.join(f'over {rival}' for rival in DENSE)} |")
    print("|" + "---|" * (5 + len(DENSE)))
    for key in losses:
        family, model, block = key
        cells = [f"{family}, {model}, {block}" if family != "dense" else f"dense, {model}", f"{sizes[key] / 1e6:.2f}"]
        cells.append("" if family == "dense" else memory_ratio(losses, sizes, key))
        for precision in ("fp32", "bf16"):
            name = block if family != "dense" else f"lean dense {precision}"
            pace = paces.get((model, name, precision))
            cells.append("" if pace is None else f"{pace:.1f}")
        cells += ["" if family == "dense" else time_ratio(losses, paces, key, rival) for rival in DENSE]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
