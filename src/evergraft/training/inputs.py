"""What a run reads from outside its folder, text and a model's configuration, and whether it is still what it was.

This module is not part of the public interface.
"""

from __future__ import annotations

from pathlib import Path

from evergraft.bert.sizes import BERT_SIZES
from evergraft.corpus import Corpus, prepared
from evergraft.corpus.cache import is_prepared
from evergraft.errors import EvergraftError
from evergraft.files.folders import MANIFEST, sha256
from evergraft.runs.folder import Run
from evergraft.runs.recipe import Recipe


def open_corpus(recipe: Recipe) -> Corpus:
    """The recipe's corpus, prepared first if the recipe names text.

    Raises:
        EvergraftError: as for `prepared` and `Corpus.open`, or a tokenizer is given for a corpus that has its own.
    """
    if recipe.tokenizer is not None and is_prepared(recipe.corpus):
        raise EvergraftError(
            f"`tokenizer` {recipe.tokenizer}: the prepared corpus {recipe.corpus[0]} has its own; leave `tokenizer` "
            "out, or prepare the text anew with it"
        )
    path = prepared(
        recipe.corpus,
        vocabulary_size=recipe.vocabulary_size,
        tokenizer=recipe.tokenizer,
        sequence_length=recipe.sequence_length,
    )
    return Corpus.open(path)


def reopen_corpus(run: Run) -> Corpus:
    """The corpus that a run began with; its text is prepared again if the cache has lost it.

    Raises:
        EvergraftError: as for `open_corpus`, or the corpus has changed since the run began.
    """
    path = Path(run.environment.corpus)
    corpus = Corpus.open(path) if path.exists() else open_corpus(run.recipe)
    if run.environment.corpus_identity != corpus_identity(corpus):
        raise _changed(run, f"text of {', '.join(run.recipe.corpus)}")
    return corpus


def check_model(run: Run) -> None:
    """Check that the config.json that a run's model was made from is what it was when the run began.

    Raises:
        EvergraftError: it has changed.
    """
    if run.environment.model_identity != model_identity(run.recipe):
        raise _changed(run, f"model {run.recipe.model}")


def corpus_identity(corpus: Corpus) -> str:
    """A hash that tells a corpus from every other one."""
    return sha256(corpus.path / MANIFEST)


def model_identity(recipe: Recipe) -> str | None:
    """A hash of the config.json that a recipe's model is made from; None for a model of the family."""
    if recipe.model in BERT_SIZES:
        return None
    path = Path(recipe.model)
    return sha256(path / "config.json" if path.is_dir() else path)


def _changed(run: Run, what: str) -> EvergraftError:
    return EvergraftError(
        f"the {what} has changed since {run.folder} began; a run can only be resumed or evaluated on what it began "
        "with: restore it, or start a new run"
    )
