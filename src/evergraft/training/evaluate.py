"""Measure a finished run on any text."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from transformers.trainer_callback import PrinterCallback

from evergraft.bert.examples import VALIDATION_SEED, PretrainingExamples
from evergraft.bert.model import SparseBertForPreTraining
from evergraft.corpus import Corpus, prepared
from evergraft.corpus.corpus import TOKENIZER
from evergraft.corpus.vocabulary import load_vocabulary
from evergraft.errors import EvergraftError
from evergraft.runs.folder import Run
from evergraft.training.inputs import reopen_corpus
from evergraft.training.trainer import PretrainingTrainer, resolve_device, training_arguments


def evaluate(
    run_folder: Path, sources: list[str] | None = None, *, batch_size: int = 32, device: str = "auto"
) -> dict[str, Any]:
    """MLM and NSP loss (nats) and accuracy of a run's model.

    Args:
        run_folder: of a finished run.
        sources: text as for `evergraft corpus prepare`, or a prepared corpus of the same tokenizer, whose validation
            split is used; by default the run's own corpus.
        batch_size: sequences at a time.
        device: `auto`, `cpu` or `cuda`.

    Returns:
        mlm_loss, mlm_accuracy, nsp_loss, nsp_accuracy, sequences.

    Raises:
        EvergraftError: the run is not there or not finished, its text has changed since, the text is bad or of another
            tokenizer, no such device.
    """
    device = resolve_device(device)
    run = Run.open(run_folder)
    model = SparseBertForPreTraining.from_pretrained(run.model_folder)
    examples = _examples(run, sources)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = training_arguments(
            output_dir=scratch,
            per_device_eval_batch_size=batch_size,
            use_cpu=device == "cpu",
            report_to=[],
            max_steps=1,
        )
        trainer = PretrainingTrainer(model, arguments, eval_dataset=examples)
        trainer.remove_callback(PrinterCallback)
        metrics = trainer.evaluate()
    names = ("mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy")
    return {name: metrics[f"validation_{name}"] for name in names} | {"sequences": len(examples)}


def _examples(run: Run, sources: list[str] | None) -> PretrainingExamples:
    """One epoch of the text, in order: of a prepared corpus its validation split, of raw text all."""
    tokenizer = run.model_folder / TOKENIZER
    if sources is None:
        corpus = reopen_corpus(run)
    else:
        length = run.recipe.sequence_length
        corpus = Corpus.open(prepared(sources, tokenizer=tokenizer, sequence_length=length, validation_fraction=1.0))
    if corpus.tokenizer.get_vocab() != load_vocabulary(tokenizer).get_vocab():
        raise EvergraftError(f"corpus {corpus.path} has another vocabulary than {run.folder}; give the text itself")
    return PretrainingExamples(corpus, corpus.validation, run.recipe.sequence_length, VALIDATION_SEED, shuffle=False)
