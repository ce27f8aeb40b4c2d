"""Ways to stop a run in the middle."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import TrainerCallback

from evergraft.training.pretrain import pretrain


class At(TrainerCallback):
    """Does something after one step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == self.step:
            self.action(model)


def power_cut(model):
    raise RuntimeError("power cut")


def cut(recipe, folder: Path, step: int = 23) -> Path:
    """Carry out a recipe until a power cut after a step; by default after the checkpoints of steps 10 and 20."""
    with pytest.raises(RuntimeError, match="power cut"):
        pretrain(recipe, folder, callbacks=[At(step, power_cut)])
    return folder
