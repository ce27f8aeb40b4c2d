"""Fine-tuning a pre-trained run on labelled sentences."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evergraft.finetuning.result import FinetuneResult as FinetuneResult
    from evergraft.finetuning.tune import finetune as finetune

_HOMES = {"FinetuneResult": "result", "finetune": "tune"}  # imported on first use, since reports need no torch
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'evergraft.finetuning' has no attribute {name!r}")
    return getattr(import_module(f"evergraft.finetuning.{_HOMES[name]}"), name)
