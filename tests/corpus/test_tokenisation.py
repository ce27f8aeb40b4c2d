"""Documents as token ids: sentences are found, and short documents joined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergraft import EvergraftError
from evergraft.corpus.tokenisation import TokenDocument, _split_sentences, join_short


def test_sentence_splitting():
    line = 'He left. "Why?" she asked. It cost 3.5 dollars (a lot!). e.g. this stays'
    assert _split_sentences(line) == [
        "He left.",
        '"Why?" she asked.',
        "It cost 3.5 dollars (a lot!). e.g. this stays",
    ]


def test_sentences_start_where_sentences_start(corpus):
    stop = corpus.tokenizer.token_to_id(".")
    starts = corpus.train.sentences[1:-1].astype(int)
    assert (corpus.train.tokens[starts - 1] == stop).all()


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30))
def test_joining_keeps_order_and_leaves_nothing_short(lengths):
    parts = [TokenDocument(np.full(n, i, np.uint16), np.zeros(min(n, 1), np.int64)) for i, n in enumerate(lengths)]
    if sum(lengths) < 29:
        with pytest.raises(EvergraftError, match="too few for one input of 32"):
            list(join_short(iter(parts), 29))
        return
    joined = list(join_short(iter(parts), 29))
    assert min(len(document.tokens) for document in joined) >= 29
    assert np.concatenate([d.tokens for d in joined]).tolist() == [i for i, n in enumerate(lengths) for _ in range(n)]
    for document in joined:
        changes = [0, *(np.flatnonzero(np.diff(document.tokens)) + 1).tolist()]
        assert document.sentences.tolist() == changes
