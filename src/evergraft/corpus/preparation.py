"""Text becomes a prepared corpus: streamed, bounded in memory, written whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evergraft import __version__
from evergraft.corpus.corpus import FORMAT, TOKENIZER, Corpus
from evergraft.corpus.passes import SPOOL, progress_bar, replayable
from evergraft.corpus.sources import STDIN, files
from evergraft.corpus.splits import write_splits
from evergraft.corpus.tokenisation import SPECIAL_IN_PAIR
from evergraft.corpus.vocabulary import learn_vocabulary, load_vocabulary
from evergraft.errors import EvergraftError
from evergraft.files.folders import atomic_folder, write_manifest

SMALLEST_VOCABULARY, LARGEST_VOCABULARY = 128, 1 << 20  # word pieces that can be learnt from text


def prepare(
    sources: Sequence[str],
    output: str | Path,
    *,
    vocabulary_size: int = 8192,
    tokenizer: str | Path | None = None,
    sequence_length: int = 128,
    validation_fraction: float = 0.05,
    progress: bool = True,
) -> Corpus:
    """Tokenise text into a new corpus folder.

    Documents too short to fill an input of `sequence_length` are joined with those that follow. A document goes to the
    validation split by a hash of its tokens, so that equal documents are never in both splits.

    Args:
        sources: where the text is, as `documents` takes it: files, globs, folders, data sets, standard input.
        output: the folder to make; it must not exist.
        vocabulary_size: size of the WordPiece vocabulary to learn, from SMALLEST_VOCABULARY to LARGEST_VOCABULARY.
        tokenizer: a tokenizer.json or vocab.txt to use instead of a learnt vocabulary.
        sequence_length: tokens of the shortest input that a document must fill.
        validation_fraction: share of the documents in the validation split, in (0, 1]; 1 puts all text there.
        progress: whether to show a progress bar on standard error.

    Returns:
        The corpus, mapped into memory.

    Raises:
        EvergraftError: bad sources or settings, too little text, or a folder that exists. Nothing is left behind.

    Example:
        >>> corpus = prepare(["builtin:docstrings"], "corpora/docstrings", vocabulary_size=8192)
        >>> corpus.train.tokens.dtype
        dtype('uint16')
    """
    output = Path(output)
    if output.exists():
        raise EvergraftError(f"{output} exists already; choose a new folder for the corpus, or remove that one first")
    if not 0 < validation_fraction <= 1:
        raise EvergraftError(f"`validation_fraction` must lie in (0, 1]; got {validation_fraction}")
    if tokenizer is None and not SMALLEST_VOCABULARY <= vocabulary_size <= LARGEST_VOCABULARY:
        raise EvergraftError(
            f"`vocabulary_size` must be {SMALLEST_VOCABULARY} to {LARGEST_VOCABULARY} to learn from text; "
            f"got {vocabulary_size}"
        )
    if sources.count(STDIN) > 1:
        raise EvergraftError("standard input can be read only once; name - once in `sources`")
    given = load_vocabulary(Path(tokenizer)) if tokenizer is not None else None
    for source in sources:
        files(source)  # a source that cannot be read is refused before any is read
    with atomic_folder(output) as folder, progress_bar(progress) as read:
        text = replayable(sources, folder, read) if given is None else lambda: read("tokenising", sources)
        vocabulary = given or learn_vocabulary(text, vocabulary_size)
        vocabulary.save(str(folder / TOKENIZER))
        facts = write_splits(folder, text(), vocabulary, sequence_length - SPECIAL_IN_PAIR, validation_fraction)
        (folder / SPOOL).unlink(missing_ok=True)
        settings = {
            "format": FORMAT,
            "evergraft": __version__,
            "sources": list(sources),
            "sequence_length": sequence_length,
            "vocabulary_size": vocabulary.get_vocab_size(),
            "validation_fraction": validation_fraction,
        }
        write_manifest(folder, settings | facts)
    return Corpus.open(output)
