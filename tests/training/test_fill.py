"""Masked words that a run's model fills in."""

from __future__ import annotations

import pytest
from transformers import pipeline

from evergraft.errors import EvergraftError
from evergraft.runs.folder import Run
from evergraft.training.export import export
from evergraft.training.fill import MASK, fill
from evergraft.training.inputs import reopen_corpus


def test_guesses_are_those_of_transformers(finished, tmp_path):
    text = "the cat [MASK] the house."
    (filled,) = fill(finished, [text])
    export(finished, tmp_path / "bert")
    reference = pipeline("fill-mask", model=str(tmp_path / "bert"))(text, top_k=3)
    (guesses,) = filled.guesses
    assert [guess.word for guess in guesses] == [one["token_str"] for one in reference]
    assert [guess.probability for guess in guesses] == pytest.approx([one["score"] for one in reference], rel=1e-4)
    assert filled.answers is None


def test_several_words_of_a_text(finished):
    (filled,) = fill(finished, ["the [MASK] [MASK] the house"])
    assert len(filled.guesses) == 2


def test_validation_text_is_masked_and_its_words_are_known(finished):
    filled = fill(finished, count=3)
    assert filled == fill(finished, count=3)
    assert len({one.text for one in filled}) == 3
    corpus = reopen_corpus(Run.open(finished))
    unseen = " ".join(map(corpus.tokenizer.id_to_token, corpus.validation.tokens.tolist())).replace(" ##", "")
    for one in filled:
        assert one.text.count(MASK) == len(one.guesses) == len(one.answers) == 1
        assert one.text.replace(MASK, one.answers[0]) in unseen


@pytest.mark.parametrize(
    ("text", "said"), [("no mask here", "has no .MASK.; write"), ("the [MASK] " + "cat " * 99, "the model takes 32")]
)
def test_texts_that_cannot_be_filled(finished, text, said):
    with pytest.raises(EvergraftError, match=said):
        fill(finished, [text])
