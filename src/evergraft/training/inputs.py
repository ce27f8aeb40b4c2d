"""What a run reads from elsewhere, text and a model's configuration, and whether it is still what it was."""

from __future__ import annotations

from pathlib import Path

from evergraft.bert.sizes import FAMILY
from evergraft.corpus import Corpus, prepared
from evergraft.corpus.corpus import MANIFEST
from evergraft.corpus.preparation import is_prepared
from evergraft.errors import EvergraftError
from evergraft.files.folders import sha256
from evergraft.runs.folder import Run
from evergraft.runs.recipe import Recipe


def open_corpus(recipe: Recipe) -> Corpus:
    """The recipe's corpus, prepared first if it is text.

    Raises:
        EvergraftError: as `prepared` and `Corpus.open`, or a tokenizer for a corpus that has its own.
    """
    if recipe.tokenizer is not None and is_prepared(recipe.corpus):
        raise EvergraftError(
            f"--tokenizer {recipe.tokenizer}: the prepared corpus {recipe.corpus[0]} has its own; leave --tokenizer "
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
    """The corpus a run began with; its text is prepared again if the cache has lost it.

    Raises:
        EvergraftError: as `open_corpus`, or it has changed since.
    """
    path = Path(run.environment["corpus"])
    corpus = Corpus.open(path) if path.exists() else open_corpus(run.recipe)
    if run.environment["corpus_identity"] != corpus_identity(corpus):
        raise _changed(run, f"text of {', '.join(run.recipe.corpus)}")
    return corpus


def check_model(run: Run) -> None:
    """Check that the configuration that a run's model was made by is what it was.

    Raises:
        EvergraftError: it is not.
    """
    if run.environment.get("model_identity") != model_identity(run.recipe):
        raise _changed(run, f"model {run.recipe.model}")


def corpus_identity(corpus: Corpus) -> str:
    """A hash to know a corpus by."""
    return sha256(corpus.path / MANIFEST)


def model_identity(recipe: Recipe) -> str | None:
    """A hash to know a model's config.json by; None for one of the family."""
    if recipe.model in FAMILY:
        return None
    path = Path(recipe.model)
    return sha256(path / "config.json" if path.is_dir() else path)


def _changed(run: Run, what: str) -> EvergraftError:
    return EvergraftError(
        f"the {what} has changed since {run.folder} began; what a run began with is all that it can be resumed or "
        "evaluated on: restore it, or start a new run"
    )
