"""Measure a finished run on any text."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pydantic import Field
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback

from evergraft.bert.examples import VALIDATION_SEED, PretrainingExamples, collate
from evergraft.bert.model import SparseBertForPreTraining
from evergraft.corpus import Corpus, prepared
from evergraft.corpus.corpus import TOKENIZER
from evergraft.corpus.vocabulary import load_vocabulary
from evergraft.errors import EvergraftError
from evergraft.kernels.device import resolve_device
from evergraft.runs.folder import Run
from evergraft.runs.record import Record
from evergraft.training.arguments import evaluation_arguments
from evergraft.training.inputs import reopen_corpus
from evergraft.training.validation import MEASURES, PREFIX, mean_losses


class EvaluationResult(Record):
    """How well a model predicts a text: losses in nats and accuracies in [0, 1], as `evaluate` returns them."""

    mlm_loss: float = Field(description="mean over the masked tokens, nats")
    mlm_accuracy: float = Field(description="share of the masked tokens predicted right")
    nsp_loss: float = Field(description="mean over the pairs of segments, nats")
    nsp_accuracy: float = Field(description="share of the pairs predicted right")
    sequences: int = Field(description="inputs it was measured on")


def evaluate(
    run_folder: Path, sources: list[str] | None = None, *, batch_size: int = 32, device: str = "auto"
) -> EvaluationResult:
    """Measure the MLM and NSP loss and accuracy of a finished run's model.

    Args:
        run_folder: the folder of a finished run.
        sources: text as for `evergraft corpus prepare`, all of which is used, or one prepared corpus of the same
            vocabulary, of which the validation split is used; by default the run's own corpus.
        batch_size: inputs that are computed at a time.
        device: `auto`, `cpu` or `cuda`.

    Returns:
        The mean losses, in nats, and the accuracies over one pass through the text.

    Raises:
        EvergraftError: there is no run or it has not finished, its text has changed since, the text cannot be read or
            has another vocabulary, or there is no such device.

    Example:
        >>> result = evaluate(Path("runs/first"), ["README.md"])
        >>> perplexity_of_masked_words = math.exp(result.mlm_loss)
    """
    device = resolve_device(device)
    run = Run.open(run_folder)
    model = SparseBertForPreTraining.from_pretrained(run.model_folder)
    examples = _examples(run, sources)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            model,
            evaluation_arguments(Path(scratch), batch_size=batch_size, device=device),
            data_collator=collate,
            eval_dataset=examples,
            compute_metrics=mean_losses,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.model_accepts_loss_kwargs = False  # the model takes no count of tokens for its loss
        measured = trainer.evaluate(metric_key_prefix=PREFIX)
    return EvaluationResult(**{name: measured[f"{PREFIX}_{name}"] for name in MEASURES}, sequences=len(examples))


def _examples(run: Run, sources: list[str] | None) -> PretrainingExamples:
    """One epoch of the text, in order."""
    tokenizer = run.model_folder / TOKENIZER
    if sources is None:
        corpus = reopen_corpus(run)
    else:
        length = run.recipe.sequence_length
        corpus = Corpus.open(prepared(sources, tokenizer=tokenizer, sequence_length=length, validation_fraction=1.0))
    if corpus.tokenizer.get_vocab() != load_vocabulary(tokenizer).get_vocab():
        raise EvergraftError(f"corpus {corpus.path} has another vocabulary than {run.folder}; give the text itself")
    return PretrainingExamples(corpus, corpus.validation, run.recipe.sequence_length, VALIDATION_SEED, shuffle=False)
