"""Whole-word masking and sentence pairs: exact rules, and statistics over many examples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from evergraft import EvergraftError
from evergraft.bert.examples import PretrainingExamples, collate
from evergraft.bert.masking import IGNORED, WholeWordMasking, masking_budget
from evergraft.bert.pairs import NEXT, RANDOM, SentencePairs
from evergraft.bert.randomness import Purpose, generator

SPECIAL = np.arange(100) < 5
CONTINUES = np.arange(100) % 4 == 3  # a quarter of the pieces continue a word
MASK = 4


def masking(budget: int) -> WholeWordMasking:
    return WholeWordMasking(SPECIAL, CONTINUES, MASK, budget)


def words(ids: list[int]) -> list[set[int]]:
    """The reference: one token at a time."""
    found: list[set[int]] = []
    for position, index in enumerate(ids):
        if SPECIAL[index]:
            continue
        if CONTINUES[index] and found and position - 1 in found[-1]:
            found[-1].add(position)
        else:
            found.append({position})
    return found


@given(st.lists(st.integers(0, 99), min_size=1, max_size=60), st.integers(1, 12), st.integers(0, 999))
def test_whole_words_within_the_budget(ids, budget, seed):
    ids = np.array(ids)
    masked = masking(budget)(ids, np.random.default_rng(seed))
    chosen = masked.positions[masked.labels != IGNORED]
    assert len(masked.positions) == len(masked.labels) == budget
    assert (np.diff(chosen) > 0).all()
    assert (masked.labels[masked.labels != IGNORED] == ids[chosen]).all()
    assert not SPECIAL[ids[chosen]].any()
    untouched = np.setdiff1d(np.arange(len(ids)), chosen)
    assert (masked.token_ids[untouched] == ids[untouched]).all()
    left = budget - len(chosen)
    for word in words(ids.tolist()):
        assert word <= set(chosen.tolist()) or not word & set(chosen.tolist())
        if not word & set(chosen.tolist()):
            assert len(word) > left  # only what does not fit is passed over
    assert not (SPECIAL[masked.token_ids[chosen]] & (masked.token_ids[chosen] != MASK)).any()


def test_statistics():
    """15 % of the tokens; of these 80 % mask, 10 % random, 10 % kept; every position equally often."""
    rng = np.random.default_rng(0)
    mask, length = masking(masking_budget(128)), 128
    fates = np.zeros(3)
    where = np.zeros(length)
    for _ in range(4000):
        ids = rng.integers(5, 100, length)
        ids[[0, 60, 127]] = 2
        masked = mask(ids, rng)
        chosen = masked.positions[masked.labels != IGNORED]
        now = masked.token_ids[chosen]
        where[chosen] += 1
        fates += (now == MASK).sum(), ((now != MASK) & (now != ids[chosen])).sum(), (now == ids[chosen]).sum()
    assert abs(fates.sum() / (4000 * 125) - 0.15) < 0.0021  # round(18.75) = 19 of 125 is 15.2 %
    shares = fates / fates.sum()
    assert abs(shares[0] - 0.8) < 0.005
    assert abs(shares[1] - 0.1 * 94 / 95) < 0.004  # a random token is the same one once in 95
    assert abs(shares[2] - (0.1 + 0.1 / 95)) < 0.004
    inner = np.delete(where, [0, 60, 127]) / where.sum()
    assert where[[0, 60, 127]].sum() == 0
    assert inner.max() / inner.min() < 1.4


def test_budget():
    assert [masking_budget(length) for length in (8, 128, 512)] == [1, 19, 76]


def test_generators_are_pure_and_apart():
    draw = lambda *place: generator(*place).random(3).tolist()  # noqa: E731
    assert draw(Purpose.MASK, 1, 2, 3) == draw(Purpose.MASK, 1, 2, 3)
    places = [(p, s, e, i) for p in Purpose for s in (0, 1) for e in (0, 1) for i in (0, 1)]
    assert len({tuple(draw(*place)) for place in places}) == len(places)


def test_pairs(corpus):
    pairs = SentencePairs(corpus, corpus.train, 32)
    documents = [
        corpus.train.tokens[a:b].tolist()
        for a, b in zip(corpus.train.documents, corpus.train.documents[1:], strict=False)
    ]
    starts = set(corpus.train.sentences.tolist())
    assert len(pairs) == sum(-(-len(document) // 29) for document in documents)
    labels = []
    cuts = 0
    for index in range(len(pairs)):
        pair = pairs.pair(0, 0, index)
        ids = pair.token_ids.tolist()
        first_end = ids.index(corpus.special_ids.sep)
        first, second = ids[1:first_end], ids[first_end + 1 : -1]
        assert len(ids) == 32
        assert ids[0] == corpus.special_ids.cls
        assert ids[-1] == corpus.special_ids.sep
        assert pair.token_type_ids.tolist() == [0] * (len(first) + 2) + [1] * (len(second) + 1)
        joined = any(_holds(document, first + second) for document in documents)
        assert joined or pair.label == RANDOM
        assert first
        assert second
        labels.append(pair.label)
        if pair.label == NEXT:
            at = next(
                s for s in range(len(corpus.train.tokens)) if corpus.train.tokens[s : s + 29].tolist() == first + second
            )
            cuts += at + len(first) in starts
    assert abs(np.mean(labels) - 0.5) < 0.1
    assert cuts > 0.9 * labels.count(NEXT)  # sentences are short here: nearly every window holds a place to cut
    assert pairs.pair(0, 0, 5).token_ids.tolist() == pairs.pair(0, 0, 5).token_ids.tolist()


def _holds(document: list[int], part: list[int]) -> bool:
    return any(document[s : s + len(part)] == part for s in range(len(document) - len(part) + 1))


def test_random_segments_come_from_another_document(corpus):
    """With the tokens renamed to the number of their document, a random B never has A's number."""
    split = corpus.train
    owner = np.repeat(np.arange(len(split.documents) - 1), np.diff(split.documents).astype(int)) + 100
    pairs = SentencePairs(corpus, split._replace(tokens=owner), 32)
    seen = set()
    for index in range(len(pairs)):
        pair = pairs.pair(3, 1, index)
        first, second = (set(pair.token_ids[pair.token_type_ids == kind].tolist()) - {2, 3} for kind in (0, 1))
        assert len(first) == 1
        assert (first == second) == (pair.label == NEXT)
        if pair.label == RANDOM:
            assert len(second) == 1
            seen |= second
    assert len(seen) > 0.9 * (len(split.documents) - 1)


def test_examples_are_a_function_of_seed_and_position(corpus):
    first, same = (PretrainingExamples(corpus, corpus.train, 32, seed=7, length=10**6) for _ in range(2))
    other = PretrainingExamples(corpus, corpus.train, 32, seed=8, length=10**6)
    n = len(first.pairs)
    order = [n + 3, 5, 2 * n + 1, 0, n + 3]
    a, b = collate([first[i] for i in order]), collate([same[i] for i in sorted(order)])
    for key, tensor in a.items():
        assert torch.equal(tensor[0], tensor[4])
        assert torch.equal(tensor[torch.tensor(order).argsort(stable=True)], b[key])
    assert not torch.equal(collate([first[0]])["input_ids"], collate([other[0]])["input_ids"])
    assert a["input_ids"].shape == (5, 32)
    assert a["labels"].shape == a["masked_positions"].shape == (5, masking_budget(32))
    with pytest.raises(IndexError):
        first[10**6]


def test_processes_of_their_own_prepare_the_same_inputs(corpus):
    examples = PretrainingExamples(corpus, corpus.train, 32, length=12)
    alone, together = (
        list(DataLoader(examples, batch_size=4, collate_fn=collate, num_workers=count)) for count in (0, 2)
    )
    assert len(alone) == 3
    for mine, other in zip(alone, together, strict=True):
        assert all(torch.equal(mine[key], other[key]) for key in mine)


def test_every_epoch_sees_every_window_with_new_masks(corpus):
    examples = PretrainingExamples(corpus, corpus.train, 32, length=10**6)
    n = len(examples.pairs)
    orders = [examples._epoch_order(epoch).copy() for epoch in (0, 1)]
    assert all(sorted(order) == list(range(n)) for order in orders)
    assert (orders[0] != orders[1]).any()
    place = int(np.flatnonzero(orders[1] == orders[0][0])[0])
    assert examples[0]["masked_positions"].tolist() != examples[n + place]["masked_positions"].tolist()


def test_too_little_text_for_long_inputs(corpus):
    with pytest.raises(EvergraftError, match="documents fill an input of 4096 tokens; expected at least 2"):
        SentencePairs(corpus, corpus.train, 4096)
