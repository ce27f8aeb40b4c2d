"""Everything a GPU is needed for, in one go of less than nine minutes: test, tune, bench, and write the results.

    make gpu-session

Each part has a time limit of its own, and one that fails does not stop the others. Results go to
benchmarks/results/gpu/ (or where the first argument says): session.json says what ran and how it ended.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUDGET = 530  # seconds of the whole session
BLOCKS = ["128x128", "64x64", "32x32", "16x16", "64x1", "32x1", "16x1", "1x1"]
STEP_BLOCKS = ["64x64", "16x16", "32x1"]
CHART_DENSITIES = ["0.05", "0.1", "0.2", "0.3", "0.5", "0.75", "1.0"]
PYTHON = [sys.executable]
BENCH = [*PYTHON, "-m", "evergraft", "bench"]


@dataclass(frozen=True)
class Part:
    """One thing to do: commands run side by side, stopped after `seconds`."""

    name: str
    seconds: int
    commands: list[list[str]]


def parts(results: Path) -> list[Part]:
    """What a session does, the most needed first."""
    blocks = [option for block in BLOCKS for option in ("--block", block)]
    step_blocks = [option for block in STEP_BLOCKS for option in ("--block", block)]
    densities = [option for density in CHART_DENSITIES for option in ("--density", density)]
    on_gpu = ["--device", "cuda", "--precision", "bf16", "--json"]
    layer = ["products", "--tokens", "16384", "--in", "768", "--out", "3072"]
    wide_layer = ["products", "--tokens", "16384", "--in", "1024", "--out", "4096"]
    tests = sorted(str(path) for path in (ROOT / "tests" / "products").glob("test_gpu*.py"))
    junit = f"--junitxml={results / 'tests.xml'}"
    workers = ["-n", str(min(8, os.cpu_count() or 1)), "--dist", "worksteal"]
    compiling = [[*PYTHON, "benchmarks/gpu_compile.py", "--block", block] for block in BLOCKS]
    chart = ["--plot", str(results / "break-even.html"), "--output", str(results / "break-even.json")]
    output = ["--output", str(results)]
    step = ["step", "--batch-size", "256", *step_blocks]
    return [
        Part("compile", 90, compiling),
        Part("tests", 150, [[*PYTHON, "-m", "pytest", "-q", *workers, junit, *tests]]),
        Part("products", 90, [[*BENCH, *layer, *blocks, *on_gpu, *output]]),
        Part("wide products", 60, [[*BENCH, *wide_layer, *blocks, *on_gpu, *output]]),
        Part("step", 100, [[*BENCH, *step, *on_gpu, "--rivals", "dense", *output]]),
        Part("charts", 60, [[*BENCH, *layer, *blocks, *densities, *on_gpu, "--rivals", "dense", *chart]]),
    ]


def run(part: Part, seconds: float, results: Path) -> dict[str, object]:
    """Carry out one part; its output goes to a file named after it."""
    start = time.monotonic()
    log = results / f"{part.name.replace(' ', '-')}.log"

    def one(command: list[str]) -> tuple[int, str]:
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                timeout=seconds, check=False,
            )  # fmt: skip
            return done.returncode, done.stdout.decode(errors="replace")
        except subprocess.TimeoutExpired as stopped:
            return 124, (stopped.stdout or b"").decode(errors="replace") + f"\nstopped after {seconds:.0f} s\n"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ended = list(pool.map(one, part.commands))
    log.write_text("".join(output for _, output in ended), encoding="utf-8")
    return {
        "part": part.name,
        "commands": [" ".join(command) for command in part.commands],
        "exit_codes": [code for code, _ in ended],
        "seconds": round(time.monotonic() - start, 1),
    }


def environment() -> dict[str, str]:
    """The sources of this checkout, whether it is installed or not; the tiles chosen are printed."""
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path, "TRITON_PRINT_AUTOTUNING": "1", "PYTHONUNBUFFERED": "1"}


def main() -> int:
    results = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "benchmarks" / "results" / "gpu").resolve()
    check = "import torch, triton; assert torch.cuda.is_available(); print(torch.cuda.get_device_name())"
    found = subprocess.run([*PYTHON, "-c", check], capture_output=True, text=True, check=False)
    if found.returncode:
        print("error: a GPU session needs a GPU that torch sees, and Triton; this machine has none", file=sys.stderr)
        return 2
    results.mkdir(parents=True, exist_ok=True)
    start, done = time.monotonic(), []
    for part in parts(results):
        left = BUDGET - (time.monotonic() - start)
        if left < 10:
            print(f"{part.name}: no time left", flush=True)
            done.append({"part": part.name, "exit_codes": [124], "seconds": 0})
            continue
        done.append(run(part, min(part.seconds, left), results))
        print(f"{part.name}: {done[-1]['seconds']} s, exit codes {done[-1]['exit_codes']}", flush=True)
        session = {"gpu": found.stdout.strip(), "seconds": round(time.monotonic() - start, 1), "parts": done}
        (results / "session.json").write_text(json.dumps(session, indent=1) + "\n", encoding="utf-8")
    return int(any(code for part in done for code in part["exit_codes"]))


if __name__ == "__main__":
    sys.exit(main())
