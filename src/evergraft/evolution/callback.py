"""`TopologyCallback`: evolves the sparse layers of any model that `transformers.Trainer` trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from evergraft.errors import EvergraftError
from evergraft.evolution.config import EvolutionConfig
from evergraft.evolution.group_lasso import apply_group_lasso
from evergraft.evolution.log import ALL, LOG_FILE
from evergraft.evolution.updater import LayerUpdate, TopologyUpdater
from evergraft.files.jsonlines import JsonLines
from evergraft.sparse.topology import BlockTopology

STATE_FILE = "topology.safetensors"


class TopologyCallback(TrainerCallback):
    """Prunes and grows during training; every update is written to `topology.jsonl` in the output folder.

    That file gets a line for each layer, and one whose layer is `all`. They hold the number of blocks pruned and grown,
    the explored degrees of freedom, the share of the blocks grown by the update before that this one pruned, how many
    blocks were exactly zero before the update, and what is dead after it: the shares of outputs that have no input and
    of inputs that no output reads.

    The updater's state travels in the Trainer's checkpoints, so that `train(resume_from_checkpoint=...)` continues
    exactly. The Trainer does not tell callbacks that folder: it is `checkpoint-STEP` of the output folder, or what
    `TrainingArguments(resume_from_checkpoint=...)` says.

    Args:
        config: how the topologies evolve.
        progress: how much of training is done, in [0, 1], from the Trainer's state; by default steps over `max_steps`.
        settings: the fields of `EvolutionConfig` by keyword, if no record is given, such as `updates=80`;
            `updates=0` is static sparsity.

    Raises:
        EvergraftError: a setting out of range; or, when training begins, whatever `TopologyUpdater` refuses.

    Example:
        >>> trainer = Trainer(model=model, ..., callbacks=[evergraft.TopologyCallback(updates=80, prune_ratio=0.5)])
    """

    updater: TopologyUpdater

    def __init__(
        self,
        config: EvolutionConfig | None = None,
        *,
        progress: Callable[[TrainerState], float] | None = None,
        **settings: Any,
    ) -> None:
        self.config = EvolutionConfig.of(config, **settings)
        self.progress = progress

    def on_train_begin(  # type: ignore[override]
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        **kwargs: Any,
    ) -> None:
        """Find the sparse layers, and the state of a run that is resumed."""
        self.updater = TopologyUpdater(
            model,
            getattr(optimizer, "optimizer", optimizer),  # accelerate wraps the optimiser
            state.max_steps if self.progress is None else None,
            self._updater_config(args),
        )
        self.log = JsonLines(_output(args) / LOG_FILE) if state.is_world_process_zero else None
        if state.global_step:
            named = args.resume_from_checkpoint  # True is the newest one, which the Trainer has found by now
            self._load((Path(named) if isinstance(named, str) else _checkpoint(args, state)) / STATE_FILE)
        if self.log:
            self.log.rewind(state.global_step)

    def _updater_config(self, args: TrainingArguments) -> EvolutionConfig:
        """The settings without Group Lasso, which is applied here, and with the Trainer's seed if they have none."""
        seed = args.seed if self.config.seed is None else self.config.seed
        return self.config.model_copy(update={"seed": seed, "group_lasso": 0.0})

    def on_optimizer_step(  # type: ignore[override]
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        optimizer: torch.optim.Optimizer,
        **kwargs: Any,
    ) -> None:
        """Apply Group Lasso with the learning rate of the step just taken."""
        if self.config.group_lasso:
            for group in optimizer.param_groups:
                mine = {id(parameter) for parameter in group["params"]}
                layers = [layer for layer in self.updater.layers.values() if id(layer.values) in mine]
                apply_group_lasso(layers, group["lr"], self.config.group_lasso)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Update the topology if an update has fallen due."""
        progress = state.global_step / state.max_steps if self.progress is None else self.progress(state)
        report = self.updater.step(progress)
        if report and self.log:
            self.log.append(*(self._line(state.global_step, update) for update in report), self._overall(state, report))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add the updater's state to the Trainer's checkpoint."""
        if state.is_world_process_zero:
            self.save(_checkpoint(args, state))

    def save(self, folder: Path) -> None:
        """Write the updater's state into a checkpoint folder.

        Raises:
            EvergraftError: there is no such folder.
        """
        if not folder.is_dir():
            raise EvergraftError(
                f"{folder} is not there: TopologyCallback saves its state beside the Trainer's, in checkpoints of the "
                "output folder; for hyperparameter search, whose checkpoints lie elsewhere, set save_strategy='no'"
            )
        save_file(self.updater.state_dict(), folder / STATE_FILE)

    def _load(self, path: Path) -> None:
        if not path.is_file():
            raise EvergraftError(
                f"{path} is missing: the checkpoint was saved without TopologyCallback, or lies elsewhere; if so, name "
                "its folder in TrainingArguments(resume_from_checkpoint=...) too"
            )
        self.updater.load_state_dict(load_file(path))

    def _line(self, step: int, update: LayerUpdate) -> dict[str, Any]:
        return {
            "step": step,
            "update": self.updater.updates_done,
            "layer": update.layer,
            "pruned": update.pruned,
            "grown": update.grown,
            "explored": update.explored,
            "removed_new_ratio": update.removed_new_ratio,
            "idle": update.idle,
            **_dead([self.updater.layers[update.layer].topology]),
        }

    def _overall(self, state: TrainerState, report: list[LayerUpdate]) -> dict[str, Any]:
        pruned, grown, previous, removed, idle = (
            sum(getattr(update, name) for update in report)
            for name in ("pruned", "grown", "previous_grown", "removed_new", "idle")
        )
        return {
            "step": state.global_step,
            "update": self.updater.updates_done,
            "layer": ALL,
            "pruned": pruned,
            "grown": grown,
            "explored": self.updater.explored,
            "removed_new_ratio": removed / previous if previous else None,
            "idle": idle,
            **_dead([layer.topology for layer in self.updater.layers.values()]),
        }


def _dead(topologies: Sequence[BlockTopology]) -> dict[str, float]:
    """The shares of dead outputs and inputs over some layers."""
    return {
        "empty_rows": sum(each.empty_rows for each in topologies) / sum(each.out_features for each in topologies),
        "unread_columns": sum(each.unread_columns for each in topologies)
        / sum(each.in_features for each in topologies),
    }


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return _output(args) / f"checkpoint-{state.global_step}"


def _output(args: TrainingArguments) -> Path:
    return Path(args.output_dir or ".")
