"""`transformers.Trainer` with a budget, exact metrics, and checkpoints that are safe and exact.

This module is not part of the public interface.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import Dataset, Sampler, SequentialSampler
from torch.utils.tensorboard import SummaryWriter
from transformers import Trainer, TrainerCallback
from transformers.integrations import TensorBoardCallback  # type: ignore[attr-defined]
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import PrinterCallback

from evergraft.bert.examples import collate
from evergraft.bert.model import SparseBertForPreTraining, encoder_matrices
from evergraft.errors import EvergraftError
from evergraft.evolution.callback import TopologyCallback
from evergraft.files.jsonlines import JsonLines
from evergraft.runs.checkpoint import checkpoint_folder, delete_old_checkpoints, write_checkpoint
from evergraft.runs.folder import Run
from evergraft.runs.layout import METRICS, TENSORBOARD
from evergraft.sparse.rates import scale_rate
from evergraft.training import state as training_state
from evergraft.training.arguments import pretraining_arguments
from evergraft.training.budget import Budget, rate_factor
from evergraft.training.plan import Plan
from evergraft.training.validation import PREFIX, mean_losses, validation_of


class CheckpointedTopology(TopologyCallback):
    """A `TopologyCallback` whose state `PretrainingTrainer` writes, with the rest of a checkpoint or not at all."""

    def on_save(self, *args: Any, **kwargs: Any) -> None:
        """Leave the finished checkpoint alone."""


class PretrainingTrainer(Trainer):
    """Trains on examples in their own order, logs exact window means, and resumes bit for bit on the CPU.

    Args:
        model: the model to train.
        plan: what to do.
        run: the run, into whose folder everything is written.
        budget: how long the run is.
        callbacks: further callbacks.
        validate_first: whether the run begins with a validation; a resumed one does not.

    Attributes:
        topology: the callback that evolves the model; None for a dense model.
        metrics: the log of the run, metrics.jsonl.
    """

    model: SparseBertForPreTraining
    optimizer: torch.optim.Optimizer
    lr_scheduler: LambdaLR

    def __init__(
        self,
        model: SparseBertForPreTraining,
        plan: Plan,
        run: Run,
        budget: Budget,
        callbacks: Sequence[TrainerCallback] = (),
        *,
        validate_first: bool,
    ) -> None:
        topology = _topology(plan, budget) if plan.is_sparse else None
        board = TensorBoardCallback(SummaryWriter(run.folder / TENSORBOARD))  # type: ignore[no-untyped-call]
        super().__init__(
            model,
            pretraining_arguments(plan, run.folder, validate_first=validate_first),
            data_collator=collate,
            train_dataset=plan.training,
            eval_dataset=plan.validation,
            compute_metrics=mean_losses,
            callbacks=[*([topology] if topology else []), *callbacks, board],
        )
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = False  # a loss is the mean of its part of the batch: Trainer averages parts
        self.plan = plan
        self.run = run
        self.budget = budget
        self.topology = topology
        self.window = torch.zeros(3, dtype=torch.float64, device=self.args.device)  # MLM, NSP nats, micro-batches
        self.metrics = JsonLines(run.folder / METRICS)

    # Training

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler[int]:
        return SequentialSampler(train_dataset or self.train_dataset)  # type: ignore[arg-type]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW, with a learning rate of its own for the encoder's matrices if the recipe has one."""
        if self.optimizer is None:
            super().create_optimizer(model)
            factor = self.plan.recipe.encoder_rate
            if factor is not None and factor != 1:
                scale_rate(self.optimizer, encoder_matrices(self.model), factor)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        """A learning rate that follows the budget."""
        optimizer = optimizer or self.optimizer
        self.lr_scheduler = LambdaLR(
            getattr(optimizer, "optimizer", optimizer),  # accelerate wraps the optimiser
            lambda step: rate_factor(self.budget.progress(step), self.plan.recipe.warmup),
        )
        return self.lr_scheduler

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss of a batch; while training, its parts are added to the window that is logged next."""
        outputs = model(**inputs)
        if model.training:
            masked = outputs.masked.sum().clamp(min=1)  # as in the loss: short inputs may have none
            mlm = outputs.mlm_nats.sum() / masked
            self.window += torch.stack([mlm, outputs.nsp_nats.mean(), outputs.loss.new_ones(())]).detach()
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Nothing is counted here, step by step: the plan knows what a step costs."""
        return 0

    # Metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Turn Trainer's training line into evergraft's; write it, and validation lines, to metrics.jsonl."""
        line = self._training_line(logs) if "grad_norm" in logs else validation_of(logs)
        if not line:
            return
        if self.state.is_world_process_zero:
            self.metrics.append({"step": self.state.global_step, **line})
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, dict(line))

    def _training_line(self, logs: dict[str, float]) -> dict[str, float]:
        window = self.accelerator.reduce(self.window, "sum")
        mlm, nsp = (window[:2] / window[2]).tolist()
        self.window.zero_()
        step, seconds = self.state.global_step, self.budget.elapsed
        if not math.isfinite(mlm + nsp):
            raise EvergraftError(
                f"the loss is {mlm + nsp} at step {step}: training has diverged; lower `learning_rate` "
                f"({self.args.learning_rate:g} now) or lengthen `warmup`, and start anew"
            )
        tokens = step * self.plan.tokens_per_step
        line = {
            "tokens": tokens,
            "flops": step * self.plan.flops_per_step,
            "seconds": round(seconds, 3),
            "tokens_per_second": round(tokens / max(seconds, 1e-9), 1),
            "loss": mlm + nsp,
            "mlm_loss": mlm,
            "nsp_loss": nsp,
            "learning_rate": logs["learning_rate"],
            "gradient_norm": logs["grad_norm"],
        }
        return line | ({"explored": self.topology.updater.explored} if self.topology else {})

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = PREFIX
    ) -> dict[str, float]:
        """Validate while the budget's clock stands still."""
        with self.budget.paused():
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)

    # Checkpoints

    def _save_checkpoint(self, model: nn.Module, trial: Any = None) -> None:
        random = training_state.random_state(self.args.device).to(self.args.device)
        random = self.accelerator.gather(random[None]).cpu()
        step = self.state.global_step
        if not bool(torch.stack([parameter.isfinite().all() for parameter in self.model.parameters()]).all()):
            raise EvergraftError(
                f"a weight is not finite at step {step}: training has diverged and nothing was saved; lower "
                f"`learning_rate` ({self.args.learning_rate:g} now) and start anew"
            )
        if not self.args.should_save:
            return
        with self.budget.paused():
            self.metrics.sync()
            if self.topology and self.topology.log:
                self.topology.log.sync()
            folder = checkpoint_folder(self.run.folder, step)
            write_checkpoint(folder, self.run.identity, step, lambda partial: self._write(partial, random))
            delete_old_checkpoints(self.run.folder, self.plan.recipe.keep, step)

    def _write(self, folder: Path, random: Tensor) -> None:
        progress = {
            "seconds": self.budget.elapsed,
            "window": self.window.tolist(),
            "scheduler": {key: value for key, value in self.lr_scheduler.state_dict().items() if key != "lr_lambdas"},
        }
        training_state.save_training_state(folder, self.model, self.optimizer, random, progress)
        self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
        if self.topology:
            self.topology.save(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        training_state.load_weights(Path(resume_from_checkpoint), self.model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        training_state.load_optimizer(Path(checkpoint), self.optimizer)
        progress = training_state.load_progress(Path(checkpoint))
        self.lr_scheduler.load_state_dict({"lr_lambdas": [None], **progress["scheduler"]})
        self.window.copy_(torch.tensor(progress["window"], dtype=self.window.dtype))
        self.budget.start(progress["seconds"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            states = training_state.load_random(Path(checkpoint))
            training_state.set_random_state(states[self.args.process_index % len(states)], self.args.device)


def _topology(plan: Plan, budget: Budget) -> CheckpointedTopology:
    return CheckpointedTopology(plan.recipe.evolution, progress=lambda state: budget.progress(state.global_step))
