"""The vocabulary of a corpus: equal text gives an equal one, and a given one must be whole."""

from __future__ import annotations

import json

import pytest

from evergraft import EvergraftError
from evergraft.corpus.vocabulary import learn_vocabulary, load_vocabulary
from tests.conftest import prose


def test_learning_is_deterministic():
    first, second = (learn_vocabulary(lambda: prose(20), 200).to_str() for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("pieces", "says"),
    [
        ("a\nb\n", r"it lacks \[PAD\]"),
        ("a\na\n", "line 2 holds the piece of another"),
        ("a\nb\n\nc\n", "line 3 holds no piece"),
    ],
)
def test_bad_vocabulary_files(tmp_path, pieces, says):
    (tmp_path / "vocab.txt").write_text(pieces)
    with pytest.raises(EvergraftError, match=says):
        load_vocabulary(tmp_path / "vocab.txt")


def test_a_tokenizer_that_skips_an_id(corpus, tmp_path):
    tokenizer = json.loads((corpus.path / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary[max(vocabulary, key=vocabulary.get)] = 999
    (tmp_path / "gap.json").write_text(json.dumps(tokenizer))
    with pytest.raises(EvergraftError, match="pieces have ids up to 999; expected every id from 0 on"):
        load_vocabulary(tmp_path / "gap.json")


def test_a_vocabulary_too_small_for_the_characters():
    with pytest.raises(EvergraftError, match="`vocabulary_size` 12 is too small for the 24 characters of the text"):
        learn_vocabulary(lambda: ["abcdefghijklmnopqrstuvwx"], 12)
