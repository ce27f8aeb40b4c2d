"""A run's checkpoints: written whole, verified on load, nothing in them that needs unpickling."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

from evergraft.errors import EvergraftError
from evergraft.files.folders import atomic_folder, verify_manifest, write_manifest

PREFIX = "checkpoint-"
MODEL, OPTIMIZER, GROUPS = "model.safetensors", "optimizer.safetensors", "optimizer.json"
RANDOM, PROGRESS = "random.safetensors", "progress.json"


def write_checkpoint(folder: Path, run: str, step: int, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder, and put it in place with a manifest; atomic.

    Args:
        run: identifies the run, so that a foreign checkpoint is known as one.
    """
    with atomic_folder(folder) as partial:
        write(partial)
        write_manifest(partial, {"run": run, "step": step})


def checkpoints(run_folder: Path) -> list[Path]:
    """The run's checkpoints by step, newest last."""
    found = [path for path in run_folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The optimiser step after which it was written."""
    return int(checkpoint.name.removeprefix(PREFIX))


def delete_old_checkpoints(run_folder: Path, keep: int, step: int) -> None:
    """Delete all but the newest `keep` checkpoints of those up to `step`, and what a kill left half-written.

    Those beyond it are of steps that a run resumed from an older checkpoint has yet to do again.
    """
    found = checkpoints(run_folder)
    done = [path for path in found if step_of(path) <= step]
    for path in [*done[:-keep], *found[len(done) :], *run_folder.glob(f".{PREFIX}*.partial")]:
        shutil.rmtree(path, ignore_errors=True)


def verify_checkpoint(folder: Path, run: str) -> None:
    """Check every byte of a checkpoint.

    Raises:
        EvergraftError: it is missing, torn, changed, or of another run; the sentence offers the one before it.
    """
    before = checkpoints(folder.parent)
    older = before[: before.index(folder)] if folder in before else before
    advice = f"; resume from the one before it with --resume {older[-1]}" if older else "; start the run anew"
    try:
        manifest = verify_manifest(folder)
    except EvergraftError as error:
        raise EvergraftError(f"{error}{advice}") from None
    if manifest.get("run") != run:
        raise EvergraftError(f"{folder} is foreign: it belongs to another run than the recipe beside it{advice}")


def save_training_state(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, random: Tensor, progress: dict[str, Any]
) -> None:
    """Write weights, optimiser state, random states [ranks, bytes] and whatever JSON `progress` holds."""
    save_model(model, str(folder / MODEL))
    state = optimizer.state_dict()
    tensors = {
        f"{index}.{key}": value
        for index, entries in state["state"].items()
        for key, value in entries.items()
        if isinstance(value, Tensor)
    }
    save_file(tensors, folder / OPTIMIZER)
    (folder / GROUPS).write_text(json.dumps(state["param_groups"]), encoding="utf-8")
    save_file({"random": random}, folder / RANDOM)
    (folder / PROGRESS).write_text(json.dumps(progress), encoding="utf-8")


def load_weights(folder: Path, model: nn.Module) -> None:
    """Load the weights and topologies of a verified checkpoint."""
    load_model(model, folder / MODEL, strict=True)


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Load the optimiser state of a verified checkpoint."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in load_file(folder / OPTIMIZER).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    groups = json.loads((folder / GROUPS).read_text(encoding="utf-8"))
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def load_random(folder: Path) -> Tensor:
    """The random states, uint8 [ranks, bytes]."""
    return load_file(folder / RANDOM)["random"]


def load_progress(folder: Path) -> dict[str, Any]:
    """What was given to `save_training_state` as `progress`."""
    progress: dict[str, Any] = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
    return progress
