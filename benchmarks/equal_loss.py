"""Time of a sparse step over that of the dense model of the same loss, from a study's losses and steps timed alone.

    python benchmarks/equal_loss.py studies/results/pareto.csv benchmarks/results/step-proxy.json

A study's runs share a machine, and their times are not to be compared to a few percent; steps that `evergraft bench
step` times in turn are. Each seed is compared with the dense models of that seed, as in a report (`study/pareto.py`).
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
Paces = dict[tuple[str, str, str], float]  # milliseconds, by model, block or rival, and precision


def read_losses(path: Path) -> Losses:
    """Validation MLM losses of a report's CSV."""
    losses: Losses = defaultdict(dict)
    with path.open(newline="", encoding="utf-8") as file:
        for run in csv.DictReader(file):
            key = (run["family"], Path(run["model"]).stem, run["block"])
            losses[key][int(run["seed"])] = float(run["validation_mlm_loss"])
    return losses


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


def ratio(losses: Losses, paces: Paces, sparse: tuple[str, str, str], rival: str) -> str:
    """Sparse over dense, at equal loss: the mean over seeds and its interval, or why there is none."""
    precision = DENSE[rival]
    pace = paces.get((sparse[1], sparse[2], precision))
    dense = {key[1]: its for key, its in losses.items() if key[0] == "dense" and (key[1], rival, precision) in paces}
    if pace is None or not dense:
        return "not timed"
    family = [(dict.fromkeys(its, paces[model, rival, precision]), its) for model, its in dense.items()]
    found = ratio_at_equal_loss(dict.fromkeys(losses[sparse], pace), losses[sparse], family)
    return "outside the dense losses of a seed" if found is None else f"{found.text(2)}, {found.seeds} seeds"


def main() -> None:
    """Print the table."""
    losses, paces = read_losses(Path(sys.argv[1])), read_paces(Path(sys.argv[2]))
    print(f"| | ms a step, fp32 | bf16 | {' | '.join(f'over {rival}' for rival in DENSE)} |")
    print("|" + "---|" * (3 + len(DENSE)))
    for family, model, block in losses:
        cells = [f"{family}, {model}, {block}" if family != "dense" else f"dense, {model}"]
        for precision in ("fp32", "bf16"):
            name = block if family != "dense" else f"lean dense {precision}"
            pace = paces.get((model, name, precision))
            cells.append("" if pace is None else f"{pace:.1f}")
        cells += ["" if family == "dense" else ratio(losses, paces, (family, model, block), rival) for rival in DENSE]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
