"""Run a study: each run is a process of its own, several run at a time, and all of it can be resumed at any moment."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from evergraft.errors import EvergraftError
from evergraft.files.folders import write_atomically
from evergraft.runs.folder import Run
from evergraft.runs.layout import ENVIRONMENT, RECIPE
from evergraft.study.grid import PlannedRun, Study
from evergraft.study.status import (
    RunStatus,
    check_run_unchanged,
    check_unchanged,
    duration,
    run_status,
    seconds_left,
    study_status,
)

POLL = 0.5  # seconds between looks at the processes


class StudyInterrupted(Exception):  # noqa: N818 - not an error: the study can go on
    """A study was stopped by a signal, after its runs had saved.

    Attributes:
        signal_number: the number of the signal, such as 15 for SIGTERM.
    """

    def __init__(self, study: Study, signal_number: int) -> None:
        super().__init__(f"stopped and saved; continue with: evergraft study run {study.path}")
        self.signal_number = signal_number


def run_study(study: Study, jobs: int = 1) -> list[RunStatus]:
    """Run what a study still lacks.

    Finished runs are left as they are, a run that was cut resumes from its last checkpoint, one that had failed is
    tried again, and a failure does not stop the others. A run that another process is working on is waited for, so that
    several machines or terminals may share one study.

    Args:
        study: as `load_study` returns it.
        jobs: how many runs go on at a time; threads and GPUs are shared out among them.

    Returns:
        The status of every run.

    Raises:
        EvergraftError: a run's folder was begun with another recipe than the study asks for; nothing is started then.
        StudyInterrupted: a signal stopped it.

    Example:
        >>> statuses = run_study(load_study(Path("studies/blocks.yaml")), jobs=2)
        >>> [status.run.name for status in statuses if status.state == "failed"]
        []
    """
    check_unchanged(study)
    study.output.mkdir(parents=True, exist_ok=True)
    waiting = [status.run for status in study_status(study) if status.state != "finished"]
    return _Runner(study, waiting, jobs).run()


class _Job:
    """A run's process.

    The log is opened and locked here, and handed on as the process's output; so it is locked for as long as the
    process lives, even when the study's own does not.
    """

    def __init__(self, run: PlannedRun, log: BinaryIO, environment: Mapping[str, str]) -> None:
        self.run = run
        self.log = log
        self.asked = 0  # times that it was asked to end
        self.begin = log.seek(0, os.SEEK_END)
        run.error.unlink(missing_ok=True)
        if not (run.folder / RECIPE).exists():
            _clear_unbegun(run.folder)
            write_atomically(run.recipe_file, run.recipe.to_yaml())
        self.process = subprocess.Popen(
            command(run),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches it through us, once
        )

    def close(self, stopping: bool) -> None:
        """Write down why the process failed, if it did and was not stopped by us, and let go of the log."""
        if self.process.returncode and not stopping:
            write_atomically(self.run.error, self._reason())
        self.log.close()

    def _reason(self) -> str:
        code = self.process.returncode
        if code < 0:
            name = signal.Signals(-code).name
            cause = "; out of memory?" if name == "SIGKILL" else ""
            return f"killed by {name}{cause}"
        with self.run.log.open("rb") as log:
            log.seek(self.begin)
            lines = log.read().decode("utf-8", "replace").split("\n")
        spoken = [line.strip() for line in lines if line.strip()] or [f"exit code {code}"]
        errors = [line for line in spoken if line.startswith("error: ")]
        return (errors or spoken)[-1].removeprefix("error: ")


def command(run: PlannedRun) -> list[str]:
    """The command line that begins a run, or goes on with one that has begun."""
    begun = (run.folder / RECIPE).exists()
    where = ["--resume", run.folder] if begun else ["--recipe", run.recipe_file, "--output", run.folder]
    return [sys.executable, "-m", "evergraft", "pretrain", *map(str, where), "--json"]


class _Runner:
    def __init__(self, study: Study, waiting: Sequence[PlannedRun], jobs: int) -> None:
        self.study = study
        self.waiting = list(waiting)
        self.slots: list[_Job | None] = [None] * jobs
        self.signal: int | None = None
        self.asked = 0  # times that we were asked to end

    def run(self) -> list[RunStatus]:
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}  {task.fields[facts]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        task = bar.add_task(escape(self.study.title), total=len(self.study.runs), facts="")

        def show() -> None:
            statuses = study_status(self.study)
            finished = sum(status.state == "finished" for status in statuses)
            bar.update(task, completed=finished, facts=_facts(statuses, len(self.slots)))

        with self._catching_signals(), bar, self._leaving_nothing_behind():
            while any(self.slots) or (self.waiting and not self.signal):
                self._reap()
                self._start()
                self._pass_on()
                show()
                time.sleep(POLL)
            show()
        if self.signal:
            raise StudyInterrupted(self.study, self.signal)
        return study_status(self.study)

    def _start(self) -> None:
        """Fill free slots with runs that nobody is at, until we are asked to end."""
        for slot, job in enumerate(self.slots):
            for run in list(self.waiting) if job is None else []:
                if self.signal:
                    return
                log = run.log.open("ab")
                try:
                    fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    log.close()
                    continue
                check_run_unchanged(self.study, run)  # another study may have begun it, since we looked
                self.waiting.remove(run)
                if run_status(run).state == "finished":  # by another process, since we looked
                    log.close()
                    continue
                self.slots[slot] = _Job(run, log, _environment(run, slot, len(self.slots)))
                break

    def _reap(self) -> None:
        for slot, job in enumerate(self.slots):
            if job is not None and job.process.poll() is not None:
                job.close(stopping=self.signal is not None)
                self.slots[slot] = None

    @contextmanager
    def _catching_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def _leaving_nothing_behind(self) -> Iterator[None]:
        """If an error ends the study (a full disk, say), let its runs save and end before it is told."""
        try:
            yield
        except BaseException:
            self._stop(signal.SIGTERM, None)
            while any(job.process.poll() is None for job in self.slots if job):
                self._pass_on()  # another one may come
                time.sleep(POLL)
            raise

    def _stop(self, number: int, frame: object) -> None:
        """Note that we are asked to end. It may come while a process is being started: it is passed on between."""
        self.signal = number
        self.asked += 1

    def _pass_on(self) -> None:
        """Ask every process to save and end; asked twice, they end at once."""
        for job in filter(None, self.slots):
            while job.asked < self.asked:
                job.process.send_signal(signal.SIGTERM)
                job.asked += 1


def threads_of(jobs: int) -> int:
    """The number of threads for each of `jobs` runs: an equal share, at least 1.

    It is a share of OMP_NUM_THREADS if that is set, else of the processors that this process may use.
    """
    given = os.environ.get("OMP_NUM_THREADS", "")
    processors = int(given) if given.isdigit() else len(os.sched_getaffinity(0))
    return max(1, processors // jobs)


def gpu_of(slot: int) -> str | None:
    """The GPU that the run in a slot gets, as CUDA_VISIBLE_DEVICES names it; None where there is none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        import torch

        visible = ",".join(map(str, range(torch.cuda.device_count())))
    gpus = [gpu for gpu in visible.split(",") if gpu]
    return gpus[slot % len(gpus)] if gpus else None


def _environment(run: PlannedRun, slot: int, jobs: int) -> dict[str, str]:
    """The environment variables of a run's process.

    A resumed run keeps its number of threads, because the last bits of sums depend on it.
    """
    begun_with = None
    if (run.folder / RECIPE).exists():
        with suppress(EvergraftError):  # the process will say what is wrong with the folder
            begun_with = Run.open(run.folder).environment.threads
    environment = os.environ | {"OMP_NUM_THREADS": str(begun_with or threads_of(jobs))}
    gpu = gpu_of(slot)
    return environment if gpu is None else environment | {"CUDA_VISIBLE_DEVICES": gpu}


def _facts(statuses: Sequence[RunStatus], jobs: int) -> str:
    counts = {state: sum(status.state == state for status in statuses) for state in ("running", "failed")}
    facts = [f"{count} {state}" for state, count in counts.items() if count]
    left = seconds_left(statuses, jobs)
    if left:
        facts.append(f"{duration(left)} left")
    return ", ".join(facts)


def _clear_unbegun(folder: Path) -> None:
    """Remove what a run left in its folder that was killed before it had written its recipe there."""
    for leftover in (folder / ENVIRONMENT, *folder.glob("*.partial")):
        leftover.unlink(missing_ok=True)
