"""How far a study is, as the folders of its runs tell."""

from __future__ import annotations

import fcntl
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from evergraft.errors import EvergraftError
from evergraft.files.yaml import read_yaml
from evergraft.runs.layout import METRICS, RECIPE, RESULT
from evergraft.runs.recipe import Recipe, stored_recipe
from evergraft.runs.result import read_result
from evergraft.study.grid import PlannedRun, Study

State = Literal["finished", "running", "failed", "stopped", "waiting"]
STATES: tuple[State, ...] = ("finished", "running", "failed", "stopped", "waiting")
TAIL = 8192  # bytes at the end of metrics.jsonl that hold its last lines


@dataclass(frozen=True)
class RunStatus:
    """How far one run is.

    Attributes:
        run: the planned run that this is about.
        state: `finished`; `running`; `failed`; `stopped` after it began (it will go on); or `waiting`.
        progress: share of the run that is done, in [0, 1].
        seconds: training time spent so far.
        loss: validation MLM loss of a finished run, else the last training MLM loss, nats; None before any.
        reason: why it failed.
    """

    run: PlannedRun
    state: State
    progress: float
    seconds: float
    loss: float | None
    reason: str | None


def check_unchanged(study: Study) -> None:
    """Check that every run that was begun was begun with the recipe that the study asks for now.

    Raises:
        EvergraftError: one was not, or the study did not begin it.
    """
    for run in study.runs:
        check_run_unchanged(study, run)


def check_run_unchanged(study: Study, run: PlannedRun) -> None:
    """Check that a run, if it was begun, was begun with the recipe that the study asks for now.

    Raises:
        EvergraftError: it was begun with another one, or not by this study.
    """
    if not (run.folder / RECIPE).exists():
        return
    if not run.recipe_file.is_file():
        raise EvergraftError(
            f"{run.folder} holds a run that this study did not begin; move it away, or give {study.path} another output"
        )
    stored = read_yaml(run.recipe_file, "recipe")
    begun = stored_recipe(stored, run.recipe_file).model_dump(mode="json")
    asked = run.recipe.model_dump(mode="json")
    said = stored.keys() | run.recipe.model_fields_set  # where defaults may have changed
    differing = [name for name in asked if name in said and asked[name] != begun[name]]
    changed = [f"{name} is {asked[name]}, was {begun[name]}" for name in differing]
    if changed:
        raise EvergraftError(
            f"{study.path} has changed since {run.folder} began: {'; '.join(changed)}; restore it, give the grid "
            "another `family` or the study another `output`, or delete that run"
        )


def study_status(study: Study) -> list[RunStatus]:
    """The status of every run of a study, in the study's order."""
    return [run_status(run) for run in study.runs]


def run_status(run: PlannedRun) -> RunStatus:
    """How far one run is, as its folder tells."""
    path = run.folder / RESULT
    if path.exists():
        try:
            result = read_result(path, "remove it and run the study again")
            return RunStatus(run, "finished", 1.0, result.seconds, result.validation_mlm_loss, None)
        except EvergraftError as torn:
            return RunStatus(run, "failed", 0.0, 0.0, None, str(torn))
    last = _last_training_line(run.folder / METRICS)
    reason = run.error.read_text(encoding="utf-8") if run.error.exists() else None
    state: State = "waiting"
    if is_running(run.log):
        state = "running"
    elif reason is not None:
        state = "failed"
    elif run.folder.exists():
        state = "stopped"
    progress = _progress(run.recipe, last["step"], last["seconds"])
    return RunStatus(run, state, progress, last["seconds"], last["mlm_loss"], reason)


def is_running(log: Path) -> bool:
    """Whether some process is working on the run that has this log."""
    try:
        with log.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True


def seconds_left(statuses: Sequence[RunStatus], jobs: int) -> float | None:
    """Expected training time until the study ends, in seconds; None while nothing is known, 0 when all is done.

    A run is expected to take as long as the median of the runs of its recipe with other seeds, or of all runs where
    nothing is known of those. It is the median because a run that was paused, or had a busy machine, says little of the
    next.

    Args:
        statuses: the status of every run; failed runs are not waited for.
        jobs: how many runs go on at a time.
    """
    known: dict[str, list[float]] = defaultdict(list)
    for status in statuses:
        if status.progress > 0:
            known[_without_seed(status.run)].append(status.seconds / status.progress)
    left = [status for status in statuses if status.state not in ("finished", "failed")]
    if not left:
        return 0.0
    if not known:
        return None
    everything = [seconds for found in known.values() for seconds in found]
    expected = [(1 - status.progress) * median(known[_without_seed(status.run)] or everything) for status in left]
    return sum(expected) / min(jobs, len(left))


def status_report(study: Study, statuses: Sequence[RunStatus], jobs: int) -> dict[str, Any]:
    """A study's status as JSON has it: the names of runs by state, the reasons of failures, and the seconds left."""
    report: dict[str, Any] = {"study": str(study.path), "output": str(study.output), "runs": len(statuses)}
    for state in STATES:
        report[state] = [status.run.name for status in statuses if status.state == state]
    report["failed"] = {status.run.name: status.reason for status in statuses if status.state == "failed"}
    left = seconds_left(statuses, jobs)
    return report | {"seconds_left": None if left is None else round(left, 1)}


def print_status(study: Study, statuses: Sequence[RunStatus], jobs: int) -> None:
    """Print every run, the failures' reasons, and the time left."""
    console = Console()
    table = Table("run", "state", "done", "trained", "MLM loss", title=escape(study.title))
    for status in statuses:
        loss = "-" if status.loss is None else f"{status.loss:.4f}"
        done = "-" if status.state == "waiting" else f"{status.progress:.0%}"
        table.add_row(status.run.name, status.state, done, duration(status.seconds) if status.seconds else "-", loss)
    console.print(table)
    for status in statuses:
        if status.state == "failed":
            console.print(f"{status.run.name} failed: {status.reason}", soft_wrap=True, markup=False)
    said = counted([status.state for status in statuses])
    left = seconds_left(statuses, jobs)
    console.print(f"{said}{f'; {duration(left)} left, {jobs} at a time' if left else ''}", soft_wrap=True)


def counted(states: Sequence[str]) -> str:
    """How many there are of each state: `2 running, 51 waiting`."""
    return ", ".join(f"{states.count(state)} {state}" for state in STATES if state in states)


def duration(seconds: float) -> str:
    """A duration as a person says it: `45 s`, `12 min`, `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _without_seed(run: PlannedRun) -> str:
    return run.name.rpartition("-s")[0]


def _progress(recipe: Recipe, step: int, seconds: float) -> float:
    if recipe.total_steps is not None:
        return min(step / recipe.total_steps, 1.0)
    return min(seconds / (60 * (recipe.minutes or 1.0)), 1.0)


def _last_training_line(path: Path) -> dict[str, Any]:
    """The last whole line of training metrics, without reading a long file; a line of zeros before the first."""
    lines: list[str] = []
    if path.exists():
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            lines = file.read().decode("utf-8", "replace").split("\n")[:-1]
    for line in reversed(lines):
        if '"tokens": ' in line and line.startswith("{"):
            last: dict[str, Any] = json.loads(line)
            return last
    return {"step": 0, "seconds": 0.0, "mlm_loss": None}
