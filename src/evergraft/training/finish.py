"""The end of a run: its final model and its result are written.

This module is not part of the public interface.
"""

from __future__ import annotations

from torch import nn

from evergraft.bert.tokenizer import save_tokenizer
from evergraft.errors import EvergraftError
from evergraft.files.folders import atomic_folder, write_manifest
from evergraft.runs.layout import MODEL
from evergraft.runs.result import RunResult, TrainingBytes
from evergraft.sparse.conversion import sparse_layers
from evergraft.training.trainer import PretrainingTrainer
from evergraft.training.validation import validations


def finish(trainer: PretrainingTrainer) -> RunResult:
    """Write the model that was trained, then the result, which marks the run as finished."""
    run, plan, model = trainer.run, trainer.plan, trainer.model
    with atomic_folder(run.folder / MODEL) as folder:
        model.save_pretrained(folder)
        save_tokenizer(plan.corpus.transformers_tokenizer(), folder, model.config.max_position_embeddings)
        write_manifest(folder, {"run": run.identity})
    result = _result(trainer)
    run.finish(result)
    return result


def _result(trainer: PretrainingTrainer) -> RunResult:
    plan, steps = trainer.plan, trainer.state.global_step
    cost, dense = plan.ledger, plan.ledger.dense or plan.ledger
    updater = trainer.topology.updater if trainer.topology else None
    found = validations(trainer.metrics)
    return RunResult(
        run=str(trainer.run.folder),
        steps=steps,
        tokens=steps * plan.tokens_per_step,
        seconds=round(trainer.budget.elapsed, 3),
        flops_total=steps * plan.flops_per_step,
        flops_per_sequence=cost.flops_per_sequence,
        flops_per_sequence_dense=dense.flops_per_sequence,
        bytes=TrainingBytes(**cost.bytes),
        bytes_dense=TrainingBytes(**dense.bytes),
        density=_density(trainer.model),
        **found[-1],
        **{f"untrained_{name}": value for name, value in found[0].items()},
        unigram_entropy=plan.corpus.unigram_entropy,
        explored=updater.explored if updater else None,
        removed_new_ratio=updater.removed_new_ratio if updater else None,
    )


def _density(model: nn.Module) -> float:
    """The share of the weights that exist in the model's sparse layers; 1 if it has none."""
    try:
        layers = sparse_layers(model).values()
    except EvergraftError:
        return 1.0
    weights = sum(layer.in_features * layer.out_features for layer in layers)
    return sum(layer.values.numel() for layer in layers) / weights
