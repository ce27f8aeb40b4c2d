"""The state of training as a checkpoint's files: tensors as safetensors, the rest as JSON, nothing to unpickle.

This module is not part of the public interface.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

from evergraft.runs.layout import WEIGHTS

OPTIMIZER, GROUPS = "optimizer.safetensors", "optimizer.json"
RANDOM, PROGRESS = "random.safetensors", "progress.json"


def save_training_state(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, random: Tensor, progress: dict[str, Any]
) -> None:
    """Write the state of training into a folder.

    Args:
        folder: an existing folder.
        model: its weights and topologies are written.
        optimizer: its state and its parameter groups are written.
        random: the random states, uint8 [processes, bytes].
        progress: anything that JSON can hold.
    """
    save_model(model, str(folder / WEIGHTS))
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
    """Load the weights and topologies of a verified checkpoint into a model."""
    load_model(model, folder / WEIGHTS, strict=True)


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Load the optimiser state of a verified checkpoint into an optimiser."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in load_file(folder / OPTIMIZER).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    groups = json.loads((folder / GROUPS).read_text(encoding="utf-8"))
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def load_random(folder: Path) -> Tensor:
    """The random states of a verified checkpoint, uint8 [processes, bytes]."""
    return load_file(folder / RANDOM)["random"]


def load_progress(folder: Path) -> dict[str, Any]:
    """The JSON that `save_training_state` was given as `progress`."""
    progress: dict[str, Any] = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
    return progress


def random_state(device: torch.device) -> Tensor:
    """The state of torch's random generator for a device, uint8 [bytes] on the CPU."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def set_random_state(state: Tensor, device: torch.device) -> None:
    """Put torch's random generator for a device into a state that `random_state` gave."""
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
