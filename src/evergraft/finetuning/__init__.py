"""Fine-tuning a pre-trained run on labelled sentences."""

from evergraft.finetuning.finetune import finetune

__all__ = ["finetune"]
