"""The cache of prepared corpora: text that a run names is prepared once, and found again by the next run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from evergraft.corpus.corpus import FORMAT
from evergraft.corpus.docstrings import docstrings_identity
from evergraft.corpus.passes import is_pipe
from evergraft.corpus.preparation import prepare
from evergraft.corpus.sources import DOCSTRINGS, STDIN, files
from evergraft.corpus.vocabulary import load_vocabulary
from evergraft.errors import EvergraftError
from evergraft.files.folders import MANIFEST


def prepared(
    sources: Sequence[str],
    *,
    vocabulary_size: int = 8192,
    tokenizer: str | Path | None = None,
    sequence_length: int = 128,
    validation_fraction: float = 0.05,
    progress: bool = True,
) -> Path:
    """The folder of the prepared corpus for sources, which is made if it is not in the cache.

    If the sources are one prepared corpus, its own folder is returned. The cache is `$EVERGRAFT_CACHE`, or else the
    folder `evergraft` in `$XDG_CACHE_HOME` or `~/.cache`. A file that has changed is prepared anew.

    Args:
        sources: one prepared corpus, or text as `documents` takes it.
        vocabulary_size: size of the WordPiece vocabulary to learn.
        tokenizer: a tokenizer.json or vocab.txt to use instead of a learnt vocabulary.
        sequence_length: tokens of the shortest input that a document must fill.
        validation_fraction: share of the documents in the validation split, in (0, 1].
        progress: whether to show a progress bar on standard error.

    Raises:
        EvergraftError: whatever `prepare` refuses; standard input or a pipe, which cannot be read twice.
    """
    if is_prepared(sources):
        return Path(sources[0])
    for source in sources:
        if source == STDIN or is_pipe(source):
            which = "standard input" if source == STDIN else f"{source}, a pipe,"
            same = f" --tokenizer {tokenizer}" if tokenizer is not None else ""
            raise EvergraftError(
                f"{which} must be prepared first: evergraft corpus prepare {source}{same} --output DIR"
            )
    options = (vocabulary_size, _tokenizer_identity(tokenizer), sequence_length, validation_fraction)
    key = hashlib.sha256(repr((FORMAT, options, [_identity(source) for source in sources])).encode()).hexdigest()[:20]
    folder = _root() / f"corpus-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # of several runs that begin at once, one prepares and the others wait
        if not folder.is_dir():
            prepare(
                sources,
                folder,
                vocabulary_size=vocabulary_size,
                tokenizer=tokenizer,
                sequence_length=sequence_length,
                validation_fraction=validation_fraction,
                progress=progress,
            )
    return folder


def is_prepared(sources: Sequence[str]) -> bool:
    """Whether the sources are one folder that holds a prepared corpus."""
    return len(sources) == 1 and (Path(sources[0]) / MANIFEST).is_file()


def _root() -> Path:
    if root := os.environ.get("EVERGRAFT_CACHE"):
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evergraft"


def _identity(source: str) -> object:
    """What changes when the text of a source changes."""
    if source == DOCSTRINGS:
        return DOCSTRINGS, docstrings_identity()
    return source, [_file_facts(path) for path in files(source) or []]


def _tokenizer_identity(path: str | Path | None) -> str | None:
    """A hash of what a given tokenizer says, so that a copy of its file elsewhere is the same tokenizer."""
    return None if path is None else hashlib.sha256(load_vocabulary(Path(path)).to_str().encode()).hexdigest()


def _file_facts(path: Path) -> object:
    facts = path.stat()
    return str(path.resolve()), facts.st_size, facts.st_mtime_ns
