"""Everything a GPU is needed for, in one go of less than nine minutes: test, tune, bench, train, and write the results.

    make gpu-session

The most needed comes first. Each part has a time limit of its own, and one that fails does not stop the others. Results
go to benchmarks/results/gpu/ (or where the first argument says) as they come: session.json says what ran and how it
ended, a log for each command what it printed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUDGET = 530  # seconds of the whole session
BLOCKS = ["64x64", "16x16", "32x1", "128x128", "32x32", "64x1", "16x1", "1x1"]
STEP_BLOCKS = ["64x64", "16x16", "32x1"]
CHART_DENSITIES = ["0.05", "0.1", "0.2", "0.3", "0.5", "0.75", "1.0"]
PYTHON = [sys.executable]
BENCH = [*PYTHON, "-m", "evergraft", "bench"]
NEEDED = (
    "accelerate", "hypothesis", "numpy", "plotly", "pydantic", "pytest", "pytest_timeout", "rich", "safetensors",
    "tensorboard", "tokenizers", "torch", "transformers", "triton", "typer", "yaml", "zstandard",
)  # fmt: skip
FACTS = """
import json, torch, transformers, triton
assert torch.cuda.is_available()
print(json.dumps({"gpu": torch.cuda.get_device_name(), "capability": torch.cuda.get_device_capability(),
    "cuda": torch.version.cuda, "torch": torch.__version__, "triton": triton.__version__,
    "transformers": transformers.__version__}))
"""


@dataclass(frozen=True)
class Part:
    """One thing to do: commands in `seconds` together, one after another, or side by side where none is timed."""

    name: str
    seconds: int
    commands: list[list[str]]
    side_by_side: bool = False


def parts(results: Path) -> list[Part]:
    """What a session does, the most needed first."""
    on_gpu = ["--device", "cuda", "--precision", "bf16", "--json"]
    output = ["--output", str(results)]
    narrow, wide = ("--in", "768", "--out", "3072"), ("--in", "1024", "--out", "4096")

    def products(size: tuple[str, ...], blocks: list[str], *more: str) -> list[str]:
        return [*BENCH, "products", "--tokens", "16384", *size, *_blocks(blocks), *on_gpu, *more]

    halves = BLOCKS[:4], BLOCKS[4:]  # each half is written as it ends
    step = [*BENCH, "step", "--batch-size", "256", *on_gpu, "--rivals", "dense", *output]
    names = ("_native", "_work", "", "_in_torch")
    tests = [str(ROOT / "tests" / "sparse" / "products" / f"test_gpu{name}.py") for name in names]
    workers = ["-n", str(min(8, os.cpu_count() or 1)), "--maxschedchunk", "2"] if find_spec("xdist") else []
    densities = [option for density in CHART_DENSITIES for option in ("--density", density)]
    chart = ["--plot", str(results / "break-even.html"), "--output", str(results / "break-even.json")]
    return [
        Part("compile", 70, [[*PYTHON, "benchmarks/gpu_compile.py", "--block", block] for block in BLOCKS], True),
        Part("tests", 120, [[*PYTHON, "-m", "pytest", "-v", *workers, f"--junitxml={results / 'tests.xml'}", *tests]]),
        Part("products", 80, [products(narrow, half, *output) for half in halves]),
        Part("step", 120, [[*step, "--block", block] for block in STEP_BLOCKS]),
        Part("training", 75, [[*PYTHON, "benchmarks/gpu_training.py", "--output", str(results / "training.json")]]),
        Part("wide products", 60, [products(wide, half, *output) for half in halves]),
        Part("indices", 20, [[*PYTHON, "benchmarks/gpu_indices.py", *_blocks(BLOCKS)]]),
        Part("charts", 60, [products(narrow, BLOCKS[:4], *densities, "--rivals", "dense", *chart)]),
    ]


def _blocks(blocks: list[str]) -> list[str]:
    return [option for block in blocks for option in ("--block", block)]


def run(part: Part, seconds: float, results: Path) -> dict[str, object]:
    """Carry out one part; what a command prints goes to a file named after it, as it is printed."""
    start = time.monotonic()
    name = part.name.replace(" ", "-")

    def one(number: int) -> int:
        left = seconds - (time.monotonic() - start)
        with (results / f"{name}-{number}.log").open("wb") as log:
            return call(part.commands[number], left, log.fileno())

    with ThreadPoolExecutor(len(part.commands) if part.side_by_side else 1) as pool:
        codes = list(pool.map(one, range(len(part.commands))))
    return {
        "part": part.name,
        "commands": [" ".join(command) for command in part.commands],
        "exit_codes": codes,
        "seconds": round(time.monotonic() - start, 1),
    }


def call(command: list[str], seconds: float, output: int) -> int:
    """The exit code of a command; 124 if it was stopped, with all that it had started, after `seconds`."""
    if seconds <= 0:
        return 124
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return 124
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def environment() -> dict[str, str]:
    """The sources of this checkout, whether it is installed or not; nothing is downloaded; chosen tiles are printed."""
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    ours = {"PYTHONPATH": path, "TRITON_PRINT_AUTOTUNING": "1", "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
    return os.environ | ours


def lacking() -> list[str]:
    """What is needed and is not there: Python packages, and what Triton compiles its launchers with."""
    compiler = any(shutil.which(name) for name in (os.environ.get("CC"), "gcc", "clang") if name)
    headers = (Path(sysconfig.get_path("include")) / "Python.h").is_file()
    tools = {"a C compiler": compiler, "Python's headers": headers}
    packages = [name for name in NEEDED if find_spec(name) is None]
    return packages + [name for name, found in tools.items() if not found]


def main() -> int:
    results = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "benchmarks" / "results" / "gpu").resolve()
    missing = lacking()
    if missing:
        print(f"error: {sys.executable} lacks {', '.join(missing)}; install them (a folder in PYTHONPATH may hold "
              "packages)", file=sys.stderr)  # fmt: skip
        return 2
    found = subprocess.run([*PYTHON, "-c", FACTS], capture_output=True, text=True, check=False)
    if found.returncode:
        print("error: a GPU session needs a GPU that torch sees; this machine has none", file=sys.stderr)
        return 2
    results.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    session = json.loads(found.stdout.splitlines()[-1]) | {"seconds": 0.0, "parts": []}
    for part in parts(results):
        left = BUDGET - (time.monotonic() - start)
        session["parts"].append(run(part, min(part.seconds, left), results))
        session["seconds"] = round(time.monotonic() - start, 1)
        (results / "session.json").write_text(json.dumps(session, indent=1) + "\n", encoding="utf-8")
        done = session["parts"][-1]
        print(f"{done['part']}: {done['seconds']} s, exit codes {done['exit_codes']}", flush=True)
    return int(any(code for part in session["parts"] for code in part["exit_codes"]))


if __name__ == "__main__":
    sys.exit(main())
