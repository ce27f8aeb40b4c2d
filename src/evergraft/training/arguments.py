"""The `TrainingArguments` of pre-training and evaluation.

This module is not part of the public interface.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from evergraft.kernels.device import Device
from evergraft.training.plan import Plan

MOST_WORKERS = 8  # processes that prepare inputs for a GPU
COMPILER = "inductor"


def pretraining_arguments(plan: Plan, folder: Path, *, validate_first: bool) -> TrainingArguments:
    """The arguments of a pre-training run: AdamW as in docs/method.md, section 1.

    Args:
        plan: what to do.
        folder: the run's folder.
        validate_first: whether the run begins with a validation. Trainer makes it, within training, because it
            compiles a model that it validates outside of training.
    """
    recipe = plan.recipe
    part = recipe.batch_size // recipe.accumulate
    return _arguments(
        plan.device,
        folder,
        max_steps=plan.most_steps,
        per_device_train_batch_size=part,
        per_device_eval_batch_size=max(8, part),
        gradient_accumulation_steps=recipe.accumulate,
        optim="adamw_torch_fused",
        adam_beta1=recipe.beta1,
        adam_beta2=recipe.beta2,
        adam_epsilon=1e-6,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_gradient_norm,
        bf16=recipe.precision == "bf16",
        seed=recipe.seed,
        logging_strategy="steps",
        logging_steps=recipe.log_every,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if recipe.evaluate_every else "no",
        eval_steps=recipe.evaluate_every,
        eval_on_start=validate_first,
        save_strategy="steps",
        save_steps=recipe.save_every,
        **(_compilation(plan) if recipe.compile else {}),
    )


def evaluation_arguments(folder: Path, *, batch_size: int, device: Device) -> TrainingArguments:
    """The arguments of an evaluation.

    Args:
        folder: a scratch folder, into which nothing is written.
        batch_size: sequences at a time.
        device: where to compute.
    """
    return _arguments(device, folder, per_device_eval_batch_size=batch_size)


def _arguments(device: Device, folder: Path, **settings: Any) -> TrainingArguments:
    """What pre-training and evaluation share: evergraft's own bars and logs in place of transformers'.

    On a GPU, processes of their own prepare the inputs, which takes longer than a step there, and the host does not
    wait while the inputs are copied.
    """
    on_gpu = device != "cpu"
    return TrainingArguments(
        output_dir=str(folder),
        report_to=[],
        disable_tqdm=True,
        log_level="error",
        remove_unused_columns=False,
        include_num_input_tokens_seen="no",
        label_names=["labels", "next_sentence_label"],
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu and torch.cuda.is_available(),
        dataloader_num_workers=min(MOST_WORKERS, os.cpu_count() or 1) if on_gpu else 0,
        accelerator_config={"non_blocking": on_gpu},
        **settings,
    )


def _compilation(plan: Plan) -> dict[str, Any]:
    """The settings of a compiled step, which is captured in CUDA graphs on a GPU.

    A step that is computed in several parts is not captured: its gradients would outlive the graph that made them
    (pytorch/pytorch#169545).
    """
    settings = {"torch_compile": True, "torch_compile_backend": COMPILER, "tf32": False}  # fp32 means fp32
    captured = plan.device != "cpu" and plan.recipe.accumulate == 1
    return settings | ({"torch_compile_mode": "reduce-overhead"} if captured else {})
