"""Text to a prepared corpus: streamed, bounded in memory, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zstandard
from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from tokenizers import Tokenizer

from evergraft import __version__
from evergraft.corpus.corpus import FORMAT, MANIFEST, OFFSET, SPLITS, TOKENIZER, Corpus, entropy
from evergraft.corpus.docstrings import docstrings_identity
from evergraft.corpus.sources import DOCSTRINGS, STDIN, Watch, documents, files
from evergraft.corpus.vocabulary import learn_vocabulary, load_vocabulary
from evergraft.errors import EvergraftError
from evergraft.files.folders import atomic_folder, write_manifest

BATCH_CHARACTERS = 4 << 20  # tokenised at a time, on all cores
LEAST_DOCUMENTS = 2  # of a split, so that a pair can be of two documents
SMALLEST_VOCABULARY, LARGEST_VOCABULARY = 128, 1 << 20  # word pieces that are learnt from text
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])")


class TokenDocument(NamedTuple):
    """A document's token ids [tokens], and where in them each sentence starts."""

    tokens: np.ndarray
    sentences: np.ndarray


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
        sources: as for `documents`.
        output: the folder; must not exist.
        vocabulary_size: of the WordPiece vocabulary to learn, SMALLEST_VOCABULARY to LARGEST_VOCABULARY.
        tokenizer: a tokenizer.json or vocab.txt to use instead.
        sequence_length: tokens of the shortest input a document must fill.
        validation_fraction: share of the documents in the validation split, in (0, 1]; 1 puts all text there.
        progress: whether to show a bar on standard error.

    Raises:
        EvergraftError: bad sources or settings, too little text, or a folder that exists. Nothing is left behind.
    """
    output = Path(output)
    if output.exists():
        raise EvergraftError(f"{output} exists already; choose a new folder for the corpus, or remove that one first")
    if not 0 < validation_fraction <= 1:
        raise EvergraftError(f"--validation-fraction must lie in (0, 1]; got {validation_fraction}")
    if tokenizer is None and not SMALLEST_VOCABULARY <= vocabulary_size <= LARGEST_VOCABULARY:
        raise EvergraftError(
            f"--vocabulary-size must be {SMALLEST_VOCABULARY} to {LARGEST_VOCABULARY} to learn from text; "
            f"got {vocabulary_size}"
        )
    if sources.count(STDIN) > 1:
        raise EvergraftError("standard input can be read once; name - once among the sources")
    given = load_vocabulary(Path(tokenizer)) if tokenizer is not None else None
    for source in sources:
        files(source)
    with atomic_folder(output) as folder, _bar(sources, progress) as passes:
        text = _replayable(sources, folder, passes) if given is None else lambda: passes("tokenising", sources)
        vocabulary = given or learn_vocabulary(text, vocabulary_size)
        vocabulary.save(str(folder / TOKENIZER))
        facts = _write_splits(folder, text(), vocabulary, sequence_length - 3, validation_fraction)
        (folder / _SPOOL).unlink(missing_ok=True)
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


def prepared(
    sources: Sequence[str],
    *,
    vocabulary_size: int = 8192,
    tokenizer: str | Path | None = None,
    sequence_length: int = 128,
    validation_fraction: float = 0.05,
    progress: bool = True,
) -> Path:
    """The corpus folder for sources: themselves if they are one, else one in the cache, made if it is not there.

    The cache is `$EVERGRAFT_CACHE`, or `evergraft` in `$XDG_CACHE_HOME` or `~/.cache`. A changed file makes a new one.

    Raises:
        EvergraftError: as `prepare`; or standard input or a pipe, which cannot be read twice.
    """
    if is_prepared(sources):
        return Path(sources[0])
    for source in sources:
        if source == STDIN or _is_pipe(source):
            which = "standard input" if source == STDIN else f"{source}, a pipe,"
            same = f" --tokenizer {tokenizer}" if tokenizer is not None else ""
            raise EvergraftError(
                f"{which} must be prepared first: evergraft corpus prepare {source}{same} --output DIR"
            )
    options = (vocabulary_size, _tokenizer_identity(tokenizer), sequence_length, validation_fraction)
    key = hashlib.sha256(repr((FORMAT, options, [_identity(source) for source in sources])).encode()).hexdigest()[:20]
    folder = _cache() / f"corpus-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # of runs that begin at once, one prepares and the others wait
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
    """Whether sources are one corpus folder."""
    return len(sources) == 1 and (Path(sources[0]) / MANIFEST).is_file()


# Reading: documents as text, as often as needed

_SPOOL = "spool.zst.partial"
Passes = Callable[[str, Sequence[str]], Iterator[str]]


def _replayable(sources: Sequence[str], folder: Path, passes: Passes) -> Callable[[], Iterator[str]]:
    """The documents as something to read twice; what is no file or a pipe is kept, compressed, until the end."""
    if all(files(source) is not None and not _is_pipe(source) for source in sources):
        return lambda: passes("reading", sources)
    spool = folder / _SPOOL
    with zstandard.open(spool, "wt", encoding="utf-8") as out:
        for document in passes("collecting", sources):
            out.write(json.dumps({"text": document}) + "\n")
    return lambda: _unspool(spool)


def _is_pipe(source: str) -> bool:
    """Whether a source is a path that cannot be read again."""
    return any(not path.is_file() for path in files(source) or [])


def _unspool(spool: Path) -> Iterator[str]:
    with zstandard.open(spool, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]


@contextmanager
def _bar(sources: Sequence[str], show: bool) -> Iterator[Passes]:
    """Passes over the documents of sources, each with a bar that follows the bytes read from files."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[seen]}"), TimeElapsedColumn())
    bar = Progress(*columns, console=Console(stderr=True), disable=not show)

    def one_pass(name: str, sources: Sequence[str]) -> Iterator[str]:
        sizes = [path.stat().st_size for source in sources for path in files(source) or []]
        task = bar.add_task(name, total=sum(sizes) if sizes else None, seen="")
        watch: Watch = lambda raw: bar.wrap_file(raw, task_id=task)  # noqa: E731
        words = 0
        for number, document in enumerate(documents(sources, watch), 1):
            words += document.count(" ") + 1
            if number % 64 == 0:
                bar.update(task, seen=f"{number:,} documents, {words:,} words")
            yield document
        bar.update(task, total=1, completed=1, seen=f"{words:,} words")

    with ExitStack() as stack:
        stack.enter_context(bar)
        yield one_pass


# Tokenising: documents as token ids, each long enough


def tokenise(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[TokenDocument]:
    """Tokenise documents sentence by sentence, a bounded batch at a time, on all cores."""
    dtype = token_dtype(tokenizer.get_vocab_size())
    for batch in _batches(texts):
        sentences = [_split_sentences(text) for text in batch]
        encodings = iter(tokenizer.encode_batch([s for some in sentences for s in some], add_special_tokens=False))
        for some in sentences:
            pieces = [ids for _ in some if (ids := next(encodings).ids)]
            lengths = np.array([len(ids) for ids in pieces], np.int64)
            tokens = np.fromiter((index for ids in pieces for index in ids), dtype, int(lengths.sum()))
            yield TokenDocument(tokens, np.cumsum(lengths) - lengths)


def join_short(texts: Iterable[TokenDocument], shortest: int) -> Iterator[TokenDocument]:
    """Join documents of fewer than `shortest` tokens with those that follow; a short rest joins the one before.

    Raises:
        EvergraftError: all text together is shorter than that.
    """
    whole: TokenDocument | None = None
    pending: list[TokenDocument] = []
    for document in texts:
        pending.append(document)
        if sum(len(part.tokens) for part in pending) >= shortest:
            if whole is not None:
                yield whole
            whole, pending = _concatenate(pending), []
    if whole is None:
        total = sum(len(part.tokens) for part in pending)
        raise EvergraftError(f"the text has {total} tokens, too few for one input of {shortest + 3}; give more text")
    yield _concatenate([whole, *pending])


def token_dtype(vocabulary_size: int) -> np.dtype[Any]:
    """The smallest unsigned type that holds every token id."""
    return np.dtype("<u2" if vocabulary_size <= 1 << 16 else "<u4")


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _split_sentences(text: str) -> list[str]:
    return [sentence for line in text.split("\n") for sentence in _SENTENCE_END.split(line)]


def _concatenate(parts: list[TokenDocument]) -> TokenDocument:
    starts = np.cumsum([0] + [len(part.tokens) for part in parts[:-1]])
    sentences = [part.sentences + start for part, start in zip(parts, starts, strict=True)]
    return TokenDocument(np.concatenate([part.tokens for part in parts]), np.concatenate(sentences))


# Writing: documents to splits


class _SplitWriter:
    """Appends documents to the three files of a split."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        folder.mkdir()
        self.tokens_file, self.documents_file, self.sentences_file = (
            stack.enter_context((folder / name).open("wb")) for name in ("tokens.bin", "documents.bin", "sentences.bin")
        )
        self.tokens = self.documents = self.sentences = 0

    def append(self, document: TokenDocument) -> None:
        document.tokens.tofile(self.tokens_file)
        np.array([self.tokens], OFFSET).tofile(self.documents_file)
        (document.sentences + self.tokens).astype(OFFSET).tofile(self.sentences_file)
        self.tokens += len(document.tokens)
        self.documents += 1
        self.sentences += len(document.sentences)

    def close(self) -> dict[str, int]:
        for file in (self.documents_file, self.sentences_file):
            np.array([self.tokens], OFFSET).tofile(file)
        return {"tokens": self.tokens, "documents": self.documents, "sentences": self.sentences}


def _write_splits(
    folder: Path, texts: Iterable[str], tokenizer: Tokenizer, shortest: int, validation_fraction: float
) -> dict[str, Any]:
    counts = np.zeros(tokenizer.get_vocab_size(), np.int64)
    joined = join_short(tokenise(texts, tokenizer), shortest)
    with ExitStack() as stack:
        train, validation = (_SplitWriter(folder / split, stack) for split in SPLITS)
        for document, validate in _assign(joined, validation_fraction):
            (validation if validate else train).append(document)
            if not validate or validation_fraction == 1:
                counts += np.bincount(document.tokens, minlength=len(counts))
        facts = {"train": train.close(), "validation": validation.close()}
    dtype = token_dtype(len(counts)).str
    return {"token_dtype": dtype, "unigram_entropy": entropy(counts), "splits": facts}


def _assign(texts: Iterable[TokenDocument], fraction: float) -> Iterator[tuple[TokenDocument, bool]]:
    """Each document, and whether it is for validation: by a hash of its tokens.

    The first few distinct documents wait for the end, to fill a split that would have too few.

    Raises:
        EvergraftError: there are too few distinct documents for two splits.
    """
    waiting: dict[bytes, TokenDocument] = {}
    copies: Counter[bytes] = Counter()
    found = {True: 0, False: 0}
    for document in texts:
        digest = hashlib.blake2b(document.tokens.tobytes(), digest_size=8).digest()
        if digest in waiting or len(waiting) < 2 * LEAST_DOCUMENTS:
            waiting.setdefault(digest, document)
            copies[digest] += 1
        else:
            validate = _hashed(digest, fraction)
            found[validate] += 1
            yield document, validate
    least = {True: LEAST_DOCUMENTS, False: LEAST_DOCUMENTS if fraction < 1 else 0}
    if len(waiting) < sum(least.values()):
        raise EvergraftError(
            f"the text has {len(waiting)} distinct documents long enough for one input, expected at least "
            f"{sum(least.values())}; give more text, or separate its documents by blank lines"
        )
    for digest, document in waiting.items():
        lacking = [validate for validate in (True, False) if found[validate] < least[validate]]
        validate = lacking[0] if lacking else _hashed(digest, fraction)
        found[validate] += 1
        yield from [(document, validate)] * copies[digest]


def _hashed(digest: bytes, fraction: float) -> bool:
    return int.from_bytes(digest, "little") < fraction * 2**64


# The cache


def _cache() -> Path:
    if root := os.environ.get("EVERGRAFT_CACHE"):
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evergraft"


def _identity(source: str) -> object:
    if source == DOCSTRINGS:
        return DOCSTRINGS, docstrings_identity()
    return source, [_file_facts(path) for path in files(source) or []]


def _tokenizer_identity(path: str | Path | None) -> str | None:
    """What a given tokenizer says, wherever it lies."""
    return None if path is None else hashlib.sha256(load_vocabulary(Path(path)).to_str().encode()).hexdigest()


def _file_facts(path: Path) -> object:
    facts = path.stat()
    return str(path.resolve()), facts.st_size, facts.st_mtime_ns
