"""Whole-word masking, a pure function of its random generator."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from evergraft.kernels.vocabulary_loss import IGNORED

MASKED_SHARE = 0.15  # the share of ordinary tokens to mask (docs/method.md, section 1)
MASK_SHARE, RANDOM_SHARE = 0.8, 0.1  # the shares of masked tokens that are replaced; the rest is kept


class Masked(NamedTuple):
    """A masked input.

    Attributes:
        token_ids: int64 [length], some of them replaced.
        positions: int64 [budget], ascending, where a token is to be predicted; 0 where fewer than `budget` are.
        labels: int64 [budget], the token that stood there; -100 where there is none.
    """

    token_ids: np.ndarray
    positions: np.ndarray
    labels: np.ndarray


def masking_budget(sequence_length: int) -> int:
    """How many tokens of an input [CLS] A [SEP] B [SEP] are masked: 15 % of the ordinary ones, at least 1.

    Args:
        sequence_length: tokens of the input, the three special ones included.
    """
    return max(1, round(MASKED_SHARE * (sequence_length - 3)))


class WholeWordMasking:
    """Masks 15 % of the tokens by whole words (docs/method.md, section 1).

    Of the masked tokens 80 % become [MASK], 10 % become a random token and 10 % stay as they are.

    Args:
        special: bool [vocabulary], True for tokens that are never masked and never put in a masked token's place.
        continuation: bool [vocabulary], True for pieces that continue a word (`##ing`).
        mask_id: the token [MASK].
        budget: how many tokens of an input are masked, at most; see `masking_budget`.
    """

    def __init__(self, special: np.ndarray, continuation: np.ndarray, mask_id: int, budget: int) -> None:
        self.special = special
        self.continues = continuation & ~special
        self.mask_id = mask_id
        self.budget = budget
        self.ordinary = np.flatnonzero(~special)

    def __call__(self, token_ids: np.ndarray, rng: np.random.Generator) -> Masked:
        """Mask an input.

        Words are drawn in random order; a word is masked if all of it fits what is left of the budget.

        Args:
            token_ids: int64 [length].
            rng: the generator that the choice is drawn from.
        """
        chosen = self._choose(self.words(token_ids), rng)
        positions = np.zeros(self.budget, np.int64)
        labels = np.full(self.budget, IGNORED, np.int64)
        positions[: len(chosen)] = chosen
        labels[: len(chosen)] = tokens = token_ids[chosen]
        masked = token_ids.copy()
        masked[chosen] = self._replace(tokens, rng)
        return Masked(masked, positions, labels)

    def words(self, token_ids: np.ndarray) -> list[range]:
        """The positions of each word: a piece that continues belongs to the ordinary token before it."""
        ordinary = ~self.special[token_ids]
        inside = self.continues[token_ids]  # whether a token continues a word
        inside[0] = False
        inside[1:] &= ordinary[:-1]
        last = ordinary.copy()
        last[:-1] &= ~inside[1:]
        ends = zip(np.flatnonzero(ordinary ^ inside).tolist(), np.flatnonzero(last).tolist(), strict=True)
        return [range(first, last + 1) for first, last in ends]

    def _choose(self, words: list[range], rng: np.random.Generator) -> np.ndarray:
        chosen: list[int] = []
        left = self.budget
        for word in rng.permutation(len(words)).tolist():
            if len(words[word]) <= left:
                chosen += words[word]
                left -= len(words[word])
            if not left:
                break
        return np.array(sorted(chosen), np.int64)

    def _replace(self, tokens: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What stands in the input in place of the tokens that are to be predicted."""
        fate = rng.random(len(tokens))
        random = self.ordinary[rng.integers(len(self.ordinary), size=len(tokens))]
        kept_or_random = np.where(fate < MASK_SHARE + RANDOM_SHARE, random, tokens)
        return np.where(fate < MASK_SHARE, self.mask_id, kept_or_random)
