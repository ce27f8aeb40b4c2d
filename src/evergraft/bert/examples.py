"""Pre-training examples as a torch dataset: example i is a pure function of (seed, i)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from evergraft.bert.masking import WholeWordMasking, masking_budget
from evergraft.bert.pairs import SentencePairs
from evergraft.bert.randomness import Purpose, generator
from evergraft.corpus import Corpus, Split

Example = dict[str, np.ndarray]
VALIDATION_SEED = 0  # runs of different seeds are compared on the same validation masks


class PretrainingExamples(Dataset[Example]):
    """MLM and NSP examples, epoch after epoch, each epoch in its own order with its own pairs and masks.

    Example i is the pair at place i mod n of epoch i div n, where n is the number of pairs in an epoch.

    Args:
        corpus: gives the vocabulary and its special tokens.
        split: the text, `corpus.train` or `corpus.validation`.
        sequence_length: tokens in an input.
        seed: the seed of the order, the pairs and the masks.
        length: how many examples; by default one epoch.
        shuffle: whether an epoch is in random order.

    Raises:
        EvergraftError: fewer than two documents fill an input.

    Example:
        >>> examples = PretrainingExamples(corpus, corpus.train, sequence_length=128, seed=1)
        >>> batch = collate([examples[0], examples[1]])
        >>> batch["input_ids"].shape
        torch.Size([2, 128])
    """

    def __init__(
        self,
        corpus: Corpus,
        split: Split,
        sequence_length: int = 128,
        seed: int = 0,
        length: int | None = None,
        shuffle: bool = True,
    ) -> None:
        self.pairs = SentencePairs(corpus, split, sequence_length)
        special = np.zeros(len(corpus.continuation), bool)
        special[list(corpus.special_ids)] = True
        self.masking = WholeWordMasking(
            special, corpus.continuation, corpus.special_ids.mask, masking_budget(sequence_length)
        )
        self.seed = seed
        self.length = len(self.pairs) if length is None else length
        self.shuffle = shuffle
        self._order: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        """The number of examples."""
        return self.length

    def of_length(self, length: int) -> PretrainingExamples:
        """The first `length` of the same examples; beyond an epoch, the next one follows."""
        examples = copy.copy(self)
        examples.length = length
        return examples

    def __getitem__(self, position: int) -> Example:
        """The example at a position, which `collate` stacks with others.

        Returns:
            int64 arrays: `input_ids` and `token_type_ids` [sequence_length], `masked_positions` and `labels` [budget]
            as in `Masked`, and `next_sentence_label`, a scalar: 0 where B follows A, 1 where it is from elsewhere.

        Raises:
            IndexError: the position lies outside [0, len).
        """
        if not 0 <= position < self.length:
            raise IndexError(position)
        epoch, place = divmod(position, len(self.pairs))
        index = int(self._epoch_order(epoch)[place]) if self.shuffle else place
        pair = self.pairs.pair(self.seed, epoch, index)
        masked = self.masking(pair.token_ids, generator(Purpose.MASK, self.seed, epoch, index))
        return {
            "input_ids": masked.token_ids,
            "token_type_ids": pair.token_type_ids,
            "masked_positions": masked.positions,
            "labels": masked.labels,
            "next_sentence_label": np.array(pair.label, np.int64),
        }

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if self._order is None or self._order[0] != epoch:
            rng = generator(Purpose.ORDER, self.seed, epoch)
            self._order = epoch, rng.permutation(len(self.pairs)).astype(np.uint32)
        return self._order[1]


def collate(examples: Sequence[Example]) -> dict[str, Tensor]:
    """Stack examples to a batch: int64 tensors whose first dimension is the batch, by the examples' names."""
    return {key: torch.from_numpy(np.stack([example[key] for example in examples])) for key in examples[0]}
