"""`transformers.Trainer` with a budget, exact metrics, and checkpoints that are safe and exact."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import EvalPrediction, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from evergraft.bert.examples import collate
from evergraft.bert.model import SparseBertForPreTraining
from evergraft.errors import EvergraftError
from evergraft.evolution.callback import TopologyCallback
from evergraft.files.jsonlines import JsonLines
from evergraft.runs import checkpoint
from evergraft.training.budget import Budget, rate_factor

METRICS_FILE = "metrics.jsonl"
UNBOUNDED_STEPS = 10**9  # for transformers, where the clock decides
MOST_WORKERS = 8  # processes that prepare inputs for a GPU
COMPILER = "inductor"


class CheckpointedTopology(TopologyCallback):
    """A `TopologyCallback` whose state `PretrainingTrainer` writes, with the rest of a checkpoint or not at all."""

    def on_save(self, *args: Any, **kwargs: Any) -> None:
        """Leave the finished checkpoint alone."""


class PretrainingTrainer(Trainer):
    """Trains on examples in their own order, logs exact window means, and resumes bit for bit on CPU.

    Args:
        model: as for Trainer.
        args: as for Trainer; made by `training_arguments`.
        run: identifies the run in its checkpoints.
        budget: how long the run is.
        warmup: share of the run in which the learning rate rises.
        keep: checkpoints kept.
        tokens_per_step, flops_per_step: for the metrics.
        topology: the callback that evolves the model, None for a dense one.
        train_dataset, eval_dataset: `PretrainingExamples`.
        callbacks: more of them.
    """

    model: SparseBertForPreTraining
    optimizer: torch.optim.Optimizer
    lr_scheduler: LambdaLR

    def __init__(
        self,
        model: SparseBertForPreTraining,
        args: TrainingArguments,
        *,
        run: str = "",
        budget: Budget | None = None,
        warmup: float = 0.0,
        keep: int = 1,
        tokens_per_step: int = 0,
        flops_per_step: float = 0.0,
        topology: CheckpointedTopology | None = None,
        train_dataset: Dataset[Any] | None = None,
        eval_dataset: Dataset[Any] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        super().__init__(
            model,
            args,
            data_collator=collate,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            compute_metrics=mean_losses,
            callbacks=[*([topology] if topology else []), *callbacks],
        )
        self.model_accepts_loss_kwargs = False  # a loss is the mean of its part of the batch: Trainer averages parts
        self.run = run
        self.budget = budget or Budget(args.max_steps, None)
        self.warmup = warmup
        self.keep = keep
        self.tokens_per_step = tokens_per_step
        self.flops_per_step = flops_per_step
        self.topology = topology
        self.window = torch.zeros(3, dtype=torch.float64, device=args.device)  # MLM nats, NSP nats, micro-batches
        self.metrics = JsonLines(Path(args.output_dir or ".") / METRICS_FILE)

    @property
    def folder(self) -> Path:
        """Where the run is kept."""
        return self.metrics.path.parent

    # Training

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler[int]:
        return SequentialSampler(train_dataset or self.train_dataset)  # type: ignore[arg-type]

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """A rate that follows the budget."""
        optimizer = optimizer or self.optimizer
        self.lr_scheduler = LambdaLR(
            getattr(optimizer, "optimizer", optimizer),
            lambda step: rate_factor(self.budget.progress(step), self.warmup),
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
        """None are counted here, step by step: the ledger knows what a step costs."""
        return 0

    # Metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Turn Trainer's training line into ours; write it, and validation lines, to metrics.jsonl."""
        if "grad_norm" in logs:
            logs = self._training_line(logs)
        elif "validation_mlm_loss" in logs:
            logs = {key: logs[key] for key in VALIDATION_KEYS}
        else:
            return
        if self.state.is_world_process_zero:
            self.metrics.append({"step": self.state.global_step, **logs})
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, dict(logs))

    def _training_line(self, logs: dict[str, float]) -> dict[str, float]:
        window = self.accelerator.reduce(self.window, "sum")
        mlm, nsp = (window[:2] / window[2]).tolist()
        self.window.zero_()
        if not math.isfinite(mlm + nsp):
            raise EvergraftError(
                f"the loss is {mlm + nsp} at step {self.state.global_step}: training has diverged; lower "
                f"--learning-rate ({self.args.learning_rate:g} now) or lengthen --warmup, and start anew"
            )
        step, seconds = self.state.global_step, self.budget.elapsed
        line = {
            "tokens": step * self.tokens_per_step,
            "flops": step * self.flops_per_step,
            "seconds": round(seconds, 3),
            "tokens_per_second": round(step * self.tokens_per_step / max(seconds, 1e-9), 1),
            "loss": mlm + nsp,
            "mlm_loss": mlm,
            "nsp_loss": nsp,
            "learning_rate": logs["learning_rate"],
            "gradient_norm": logs["grad_norm"],
        }
        return line | ({"explored": self.topology.updater.explored} if self.topology else {})

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "validation",
    ) -> dict[str, float]:
        """Validate, off the clock."""
        with self.budget.paused():
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)

    # Checkpoints

    def _save_checkpoint(self, model: nn.Module, trial: Any = None) -> None:
        random = self.accelerator.gather(_random_state(self.args.device).to(self.args.device)[None]).cpu()
        if not bool(torch.stack([parameter.isfinite().all() for parameter in self.model.parameters()]).all()):
            raise EvergraftError(
                f"a weight is not finite at step {self.state.global_step}: training has diverged and nothing was "
                f"saved; lower --learning-rate ({self.args.learning_rate:g} now) and start anew"
            )
        if not self.args.should_save:
            return
        with self.budget.paused():
            step = self.state.global_step
            self.metrics.sync()
            if self.topology and self.topology.log:
                self.topology.log.sync()
            checkpoint.write_checkpoint(
                self.folder / f"{checkpoint.PREFIX}{step}", self.run, step, lambda folder: self._write(folder, random)
            )
            checkpoint.delete_old_checkpoints(self.folder, self.keep, step)

    def _write(self, folder: Path, random: Tensor) -> None:
        progress = {
            "seconds": self.budget.elapsed,
            "window": self.window.tolist(),
            "scheduler": {key: value for key, value in self.lr_scheduler.state_dict().items() if key != "lr_lambdas"},
        }
        checkpoint.save_training_state(folder, self.model, self.optimizer, random, progress)
        self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
        if self.topology:
            self.topology.save(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        checkpoint.load_weights(Path(resume_from_checkpoint), self.model)

    def _load_optimizer_and_scheduler(self, checkpoint_folder: str | None) -> None:
        if checkpoint_folder is None:
            return
        folder = Path(checkpoint_folder)
        checkpoint.load_optimizer(folder, self.optimizer)
        progress = checkpoint.load_progress(folder)
        self.lr_scheduler.load_state_dict({"lr_lambdas": [None], **progress["scheduler"]})
        self.window.copy_(torch.tensor(progress["window"], dtype=self.window.dtype))
        self.budget.start(progress["seconds"])

    def _load_rng_state(self, checkpoint_folder: str | None) -> None:
        if checkpoint_folder is not None:
            states = checkpoint.load_random(Path(checkpoint_folder))
            _set_random_state(states[self.args.process_index % len(states)], self.args.device)


def training_arguments(*, use_cpu: bool, compiled: bool = False, **settings: Any) -> TrainingArguments:
    """TrainingArguments with what every run shares: AdamW as in docs/method.md (section 1), our own bars and logs.

    On a GPU processes of their own prepare the inputs, which takes longer than a step there, and the host does not wait
    while they are copied. A compiled step is captured in CUDA graphs; but not one of several parts, whose gradients
    outlive the graph that made them (pytorch/pytorch#169545).
    """
    if compiled:
        settings |= {"torch_compile": True, "torch_compile_backend": COMPILER, "tf32": False}  # fp32 means fp32
        if not use_cpu and settings.get("gradient_accumulation_steps", 1) == 1:
            settings["torch_compile_mode"] = "reduce-overhead"
    return TrainingArguments(
        optim="adamw_torch_fused",
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-6,
        logging_strategy="steps",
        logging_nan_inf_filter=False,
        save_strategy="steps",
        disable_tqdm=True,
        remove_unused_columns=False,
        include_num_input_tokens_seen="no",
        label_names=["labels", "next_sentence_label"],
        log_level="error",
        use_cpu=use_cpu,
        dataloader_pin_memory=torch.cuda.is_available() and not use_cpu,
        dataloader_num_workers=0 if use_cpu else min(MOST_WORKERS, os.cpu_count() or 1),
        accelerator_config={"non_blocking": not use_cpu},
        **settings,
    )


def resolve_device(name: str) -> str:
    """`auto`, `cpu` or `cuda` -> `cpu` or `cuda`.

    Raises:
        EvergraftError: another name, or `cuda` where torch sees no GPU.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise EvergraftError(f"--device must be auto, cpu or cuda; got {name}")
    if name == "cuda" and not torch.cuda.is_available():
        raise EvergraftError("--device cuda: torch sees no GPU on this machine; use --device cpu or auto")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


VALIDATION_KEYS = (
    "validation_mlm_loss",
    "validation_mlm_accuracy",
    "validation_nsp_loss",
    "validation_nsp_accuracy",
)


def mean_losses(outputs: EvalPrediction) -> dict[str, float]:
    """The parts of many `PretrainingOutput`s -> mean losses (nats) and accuracies over tokens and over pairs."""
    mlm_nats, mlm_correct, masked, nsp_nats, nsp_correct = (
        np.asarray(part, np.float64) for part in outputs.predictions
    )
    return {
        "mlm_loss": float(mlm_nats.sum() / masked.sum()),
        "mlm_accuracy": float(mlm_correct.sum() / masked.sum()),
        "nsp_loss": float(nsp_nats.mean()),
        "nsp_accuracy": float(nsp_correct.mean()),
    }


def _random_state(device: torch.device) -> Tensor:
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.get_rng_state()


def _set_random_state(state: Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
