"""A run's checkpoints on disk: written whole, verified before they are read, and deleted when newer ones are there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from evergraft.errors import EvergraftError
from evergraft.files.folders import atomic_folder, verify_manifest, write_manifest
from evergraft.runs.layout import CHECKPOINT


def checkpoint_folder(run_folder: Path, step: int) -> Path:
    """Where a run keeps the checkpoint that it writes after `step` optimiser steps."""
    return run_folder / f"{CHECKPOINT}{step}"


def step_of(checkpoint: Path) -> int:
    """The optimiser step after which a checkpoint was written, from its folder's name."""
    return int(checkpoint.name.removeprefix(CHECKPOINT))


def checkpoints(run_folder: Path) -> list[Path]:
    """The checkpoints in a run's folder, ordered by their steps."""
    found = [path for path in run_folder.glob(f"{CHECKPOINT}*") if path.name.removeprefix(CHECKPOINT).isdigit()]
    return sorted(found, key=step_of)


def write_checkpoint(folder: Path, run: str, step: int, write: Callable[[Path], None]) -> None:
    """Let `write` fill a new folder, add a manifest, and move it to `folder`: all of it or nothing.

    Args:
        folder: where the checkpoint is to be.
        run: the run's identity, by which `verify_checkpoint` tells this run's checkpoints from another's.
        step: the optimiser step after which it is written.
        write: writes every file of the checkpoint into the folder it is given.
    """
    with atomic_folder(folder) as partial:
        write(partial)
        write_manifest(partial, {"run": run, "step": step})


def delete_old_checkpoints(run_folder: Path, keep: int, step: int) -> None:
    """Delete all checkpoints but the newest `keep` that are not beyond `step`, and what a kill left half-written.

    Checkpoints beyond `step` were written before the run was resumed from an older one: the run will write them again.
    """
    found = checkpoints(run_folder)
    done = [path for path in found if step_of(path) <= step]
    for path in [*done[:-keep], *found[len(done) :], *run_folder.glob(f".{CHECKPOINT}*.partial")]:
        shutil.rmtree(path, ignore_errors=True)


def verify_checkpoint(folder: Path, run: str) -> None:
    """Check every byte of a checkpoint.

    Args:
        folder: the checkpoint.
        run: the identity of the run that it must belong to.

    Raises:
        EvergraftError: the checkpoint is missing, torn, changed, or another run's; the sentence names the checkpoint
            before it, from which the run can be resumed.
    """
    before = checkpoints(folder.parent)
    older = before[: before.index(folder)] if folder in before else before
    resume = f"resume from the one before it with: evergraft pretrain --resume {older[-1]}" if older else ""
    advice = f"; {resume or 'start the run anew'}"
    try:
        manifest = verify_manifest(folder)
    except EvergraftError as error:
        raise EvergraftError(f"{error}{advice}") from None
    if manifest.get("run") != run:
        raise EvergraftError(f"{folder} is foreign: it belongs to another run than the recipe beside it{advice}")
