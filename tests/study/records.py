"""Finished runs made of numbers alone."""

from __future__ import annotations

from pathlib import Path

from evergraft.runs.environment import RunEnvironment
from evergraft.runs.recipe import Recipe
from evergraft.runs.result import RunResult, TrainingBytes
from evergraft.study.grid import family_of
from evergraft.study.record import RunRecord

MACHINE = {
    "command": ["evergraft"], "commit": None, "python": "3.11", "platform": "Linux", "processor": "a processor",
    "cpu_capability": "AVX2", "threads": 1, "gpu": None, "versions": {"evergraft": "0"}, "corpus": "corpus",
}  # fmt: skip


def make_record(loss: float, cost: float = 1.0, text: str = "text", family: str | None = None, **fields) -> RunRecord:
    """A run of these recipe fields that came to a loss at a cost, on a text of this identity."""
    recipe = Recipe(**{"steps": 1000, **fields})
    recipe = recipe.model_copy(update={"updates": recipe.updates_or_default})
    share = round(1000 * cost)
    size = TrainingBytes(weights=share, gradients=share, optimizer=2 * share, indices=0)
    result = RunResult(
        steps=1000,
        tokens=1000,
        validation_mlm_loss=loss,
        validation_nsp_loss=0.69,
        flops_total=cost,
        seconds=cost,
        density=recipe.density,
        explored=None if recipe.density == 1 else 0.5,
        removed_new_ratio=None,
        bytes=size,
        bytes_dense=size,
    )
    environment = RunEnvironment(**MACHINE, corpus_identity=text)
    return RunRecord(f"run-{recipe.seed}", family or family_of(recipe), Path("nowhere"), recipe, result, environment)
