"""What a sparse model costs over the dense one of its loss: a study's losses, FLOPs and sizes, and steps timed alone.

    python benchmarks/equal_loss.py RUNS.csv... STEPS.json

RUNS.csv are files that `evergraft report --format csv` wrote; of two runs of one configuration and seed, the one of the
first file counts. A study's runs share a machine, so that their times cannot be compared to a few percent; time is
therefore that of steps that `evergraft bench step` timed alone, the fastest step of each model. Intervals are over
seeds, each of which is compared with the dense models of that seed, as in a report (`study/pareto.py`); they say
nothing of how far times scatter. Memory is that of the encoder's linear layers in training, by the ledger.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from evergraft.study.pareto import ratio_at_equal_loss
from evergraft.study.step_times import StepTimes

# What the dense models run on, and the precision of the sparse step beside it. Losses are those of the study, in fp32.
DENSE = {"lean dense fp32": "fp32", "lean dense (oneDNN) fp32": "fp32", "lean dense bf16": "bf16"}
Key = tuple[str, str, str, float]  # family, model, block and density got
Runs = dict[Key, dict[int, dict[str, str]]]  # by seed: a row of a report's CSV
Pace = tuple[str, str, float, str]  # model, block or rival, density got and precision
Paces = dict[Pace, float]  # milliseconds


def read_runs(paths: Sequence[Path]) -> Runs:
    """The rows of reports' CSV files."""
    runs: Runs = defaultdict(dict)
    for path in paths:
        with path.open(newline="", encoding="utf-8") as file:
            for run in csv.DictReader(file):
                key = (run["family"], Path(run["model"]).stem, run["block"], round(float(run["density_got"]), 4))
                runs[key].setdefault(int(run["seed"]), run)
    return runs


def loss(run: dict[str, str]) -> float:
    """Validation MLM loss, nats."""
    return float(run["validation_mlm_loss"])


def flops(run: dict[str, str]) -> float:
    """Training FLOPs of the encoder, of the whole run."""
    return float(run["flops_total"])


def size(run: dict[str, str]) -> float:
    """Bytes of the encoder's linear layers in training."""
    return sum(float(run[f"bytes_{kind}"]) for kind in ("weights", "gradients", "optimizer", "indices"))


def ratio(runs: Runs, sparse: Key, cost: Callable[[Key, dict[str, str]], float | None]) -> str:
    """A sparse configuration's cost over the dense models' at equal loss: mean over seeds and interval, or why none."""
    found = {key: {seed: cost(key, run) for seed, run in its.items()} for key, its in runs.items()}
    known = {key: {seed: of for seed, of in its.items() if of is not None} for key, its in found.items()}
    losses = {key: {seed: loss(run) for seed, run in its.items()} for key, its in runs.items()}
    dense = [(known[key], losses[key]) for key in runs if key[0] == "dense" and known[key]]
    if not known[sparse] or not dense:
        return "not timed"
    estimate = ratio_at_equal_loss(known[sparse], losses[sparse], dense)
    return "outside the dense losses of a seed" if estimate is None else f"{estimate.text(2)}, {estimate.seeds} seeds"


def pace_key(key: Key, rival: str, precision: str) -> Pace:
    """Whose step a configuration takes: a dense model's is that of a rival."""
    family, model, block, density = key
    return model, rival.rsplit(" ", 1)[0] if family == "dense" else block, density, precision


def ratios(runs: Runs, paces: Paces, sparse: Key) -> list[str]:
    """What a sparse configuration costs over dense at equal loss: FLOPs, memory, and time beside each of DENSE."""

    def pace(rival: str) -> Callable[[Key, dict[str, str]], float | None]:
        return lambda key, _: paces.get(pace_key(key, rival, DENSE[rival]))

    costs = [lambda _, run: flops(run), lambda _, run: size(run), *map(pace, DENSE)]
    return [ratio(runs, sparse, cost) for cost in costs]


def main() -> None:
    """Print the table."""
    runs = read_runs([Path(name) for name in sys.argv[1:-1]])
    times = StepTimes.read(Path(sys.argv[-1])).steps
    paces = {(step.model, step.kind, step.density, step.precision): 1e3 * seconds for step, seconds in times.items()}
    heads = ("FLOPs", "MB", "ms a step, fp32", "bf16", "FLOPs over dense", "MB", *(f"time over {one}" for one in DENSE))
    print(f"| | {' | '.join(heads)} |\n|{'---|' * (1 + len(heads))}")
    for key, its in runs.items():
        family, model, block, density = key
        run = next(iter(its.values()))
        cells = [f"dense, {model}" if family == "dense" else f"{family} {block} at {density}, {model}"]
        cells += [f"{flops(run) / 1e12:.3g}e12", f"{size(run) / 1e6:.2f}"]
        for precision in ("fp32", "bf16"):
            pace = paces.get(pace_key(key, f"lean dense {precision}", precision))
            cells.append("" if pace is None else f"{pace:.1f}")
        cells += [""] * (2 + len(DENSE)) if family == "dense" else ratios(runs, paces, key)
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
