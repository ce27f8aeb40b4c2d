"""Documents are written to the two splits of a corpus, training and validation, as they come."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from evergraft.corpus.corpus import OFFSET, SPLITS
from evergraft.corpus.tokenisation import TokenDocument, join_short, token_dtype, tokenise
from evergraft.errors import EvergraftError

LEAST_DOCUMENTS = 2  # in a split, so that the two halves of a pair can come from two documents


def write_splits(
    folder: Path, texts: Iterable[str], tokenizer: Tokenizer, shortest: int, validation_fraction: float
) -> dict[str, Any]:
    """Tokenise documents and write them to the splits of a corpus folder.

    Args:
        folder: the corpus's folder, which gets one folder for each split.
        texts: the documents.
        tokenizer: makes their tokens.
        shortest: documents of fewer tokens are joined with those that follow.
        validation_fraction: share of the documents in the validation split, in (0, 1].

    Returns:
        What the manifest says of them: the dtype of the tokens, the unigram entropy of the training tokens in nats
        (of the validation tokens if all text is there), and the counts of each split.

    Raises:
        EvergraftError: too little text, or too few distinct documents, for two splits.
    """
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


def entropy(counts: np.ndarray) -> float:
    """The entropy, in nats, of a distribution that is given as counts."""
    shares = counts[counts > 0] / counts.sum()
    return -math.fsum(shares * np.log(shares))


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
        """Write the end of the last document and sentence, and return the counts."""
        for file in (self.documents_file, self.sentences_file):
            np.array([self.tokens], OFFSET).tofile(file)
        return {"tokens": self.tokens, "documents": self.documents, "sentences": self.sentences}


def _assign(texts: Iterable[TokenDocument], fraction: float) -> Iterator[tuple[TokenDocument, bool]]:
    """Each document, and whether it goes to the validation split, which a hash of its tokens decides.

    The first few distinct documents wait until the end, to fill a split that would have too few.

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
