"""The names of the files and folders in a run's folder (docs/design.md, "A run's folder"), each defined here alone."""

from __future__ import annotations

from evergraft.evolution.log import LOG_FILE

RUNS = "runs"  # the folder inside the current one for runs that are given no other folder

RECIPE = "recipe.yaml"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
TOPOLOGY = LOG_FILE
RESULT = "result.json"
MODEL = "model"
CONFIG, WEIGHTS = "config.json", "model.safetensors"  # in the folder of a model
TENSORBOARD = "tensorboard"
FINETUNE = "finetune"
REPORT = "report.html"
CHECKPOINT = "checkpoint-"  # followed by the optimiser step after which it was written
