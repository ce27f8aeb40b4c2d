"""Documents are turned into token ids, and short ones are joined until they fill an input."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from evergraft.errors import EvergraftError

SPECIAL_IN_PAIR = 3  # special tokens of an input, which is [CLS] A [SEP] B [SEP]
BATCH_CHARACTERS = 4 << 20  # tokenised at a time, on all cores
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])")


class TokenDocument(NamedTuple):
    """A document as token ids.

    Attributes:
        tokens: uint16 or uint32 [tokens].
        sentences: int64 [sentences], the position in `tokens` at which each sentence starts.
    """

    tokens: np.ndarray
    sentences: np.ndarray


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
    """Join documents of fewer than `shortest` tokens with those that follow.

    What is left at the end, and is too short, joins the document before it.

    Raises:
        EvergraftError: all text together is shorter than `shortest`.
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
        raise EvergraftError(
            f"the text has {total} tokens, too few for one input of {shortest + SPECIAL_IN_PAIR}; give more text"
        )
    yield _concatenate([whole, *pending])


def token_dtype(vocabulary_size: int) -> np.dtype[Any]:
    """The smallest unsigned integer type, little-endian, that holds every token id."""
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
