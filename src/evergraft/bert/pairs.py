"""Pairs of segments for next-sentence prediction, each a pure function of (seed, epoch, index)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from evergraft.bert.randomness import Purpose, generator
from evergraft.corpus import Corpus, Split
from evergraft.errors import EvergraftError

NEXT, RANDOM = 0, 1  # next_sentence_label, as transformers counts it


class Pair(NamedTuple):
    """One input: token_ids and token_type_ids, int64 [sequence_length], and the next-sentence label."""

    token_ids: np.ndarray
    token_type_ids: np.ndarray
    label: int


class SentencePairs:
    """Inputs [CLS] A [SEP] B [SEP] of exactly `sequence_length` tokens (docs/method.md, section 1).

    Each document is cut into windows of sequence_length - 3 tokens, the last one moved back to end with the document.
    A window opens at A's first token; A ends where a sentence ends, near a random place in the middle half. B is what
    follows (label 0), or in half of all pairs as many tokens from a sentence start of another document (label 1).

    Args:
        corpus: gives the special tokens.
        split: the text, `corpus.train` or `corpus.validation`.
        sequence_length: tokens in an input, at least 8.

    Attributes:
        left_out: how many documents do not fill an input, and how many tokens they have together.

    Raises:
        EvergraftError: fewer than two documents that fill one input.
    """

    def __init__(self, corpus: Corpus, split: Split, sequence_length: int) -> None:
        self.tokens, self.sentences = split.tokens, split.sentences
        self.special = corpus.special_ids
        self.content = sequence_length - 3
        lengths = np.diff(split.documents).astype(np.int64)
        fitting = np.flatnonzero(lengths >= self.content)
        if sequence_length < 8 or len(fitting) < 2:
            raise EvergraftError(
                f"{corpus.path}: {len(fitting)} of {len(lengths)} documents fill an input of {sequence_length} tokens; "
                "expected at least 2: prepare more text, or use a shorter `sequence_length` (at least 8)"
            )
        self.left_out = len(lengths) - len(fitting), int(lengths.sum() - lengths[fitting].sum())
        self.begins = split.documents[fitting].astype(np.int64)
        self.ends = self.begins + lengths[fitting]
        self.windows = np.cumsum(-(-lengths[fitting] // self.content))

    def __len__(self) -> int:
        """Windows in the split: the inputs of one epoch."""
        return int(self.windows[-1])

    def pair(self, seed: int, epoch: int, index: int) -> Pair:
        """One input; it is paired and cut anew in every epoch.

        Args:
            seed: the seed of the cut and the pairing.
            epoch: the epoch, from 0.
            index: the window that A opens, in [0, len).
        """
        rng = generator(Purpose.PAIR, seed, epoch, index)
        document = int(np.searchsorted(self.windows, index, side="right"))
        window = index - (int(self.windows[document - 1]) if document else 0)
        begin = min(int(self.begins[document]) + window * self.content, int(self.ends[document]) - self.content)
        middle = self._cut(begin, rng)
        first, second, label = self.tokens[begin:middle], self.tokens[middle : begin + self.content], NEXT
        if rng.random() < 0.5:
            second, label = self._segment_elsewhere(document, len(second), rng), RANDOM
        return self._join(first, second, label)

    def _cut(self, begin: int, rng: np.random.Generator) -> int:
        """Where B starts: the sentence start nearest to a random target, if any lies in the window."""
        target = begin + int(rng.integers(self.content // 4, self.content - self.content // 4))
        after = self._sentences_before(target, "left")
        nearest = [int(start) for start in self.sentences[max(after - 1, 0) : after + 1]]
        inside = [start for start in nearest if begin < start < begin + self.content]
        return min(inside, key=lambda start: abs(start - target), default=target)

    def _segment_elsewhere(self, document: int, length: int, rng: np.random.Generator) -> np.ndarray:
        other = int(rng.integers(len(self.begins) - 1))
        other += other >= document
        target = int(rng.integers(self.begins[other], self.ends[other] - length + 1))
        start = int(self.sentences[self._sentences_before(target, "right") - 1])
        return self.tokens[start : start + length]

    def _sentences_before(self, token: int, side: Literal["left", "right"]) -> int:
        """How many sentences start before a token, or at it (`right`); of any other type, numpy would copy them all."""
        return int(np.searchsorted(self.sentences, self.sentences.dtype.type(token), side=side))

    def _join(self, first: np.ndarray, second: np.ndarray, label: int) -> Pair:
        separator, length = len(first) + 1, self.content + 3
        token_ids, types = np.empty(length, np.int64), np.zeros(length, np.int64)
        token_ids[0] = self.special.cls
        token_ids[1:separator] = first
        token_ids[[separator, -1]] = self.special.sep
        token_ids[separator + 1 : -1] = second
        types[separator + 1 :] = 1
        return Pair(token_ids, types, label)
