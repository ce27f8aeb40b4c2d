"""The two splits of a corpus: disjoint by document, and counted."""

from __future__ import annotations

import numpy as np
import pytest

from evergraft.corpus import Corpus, prepare
from evergraft.corpus.splits import entropy
from tests.conftest import prose
from tests.corpus.conftest import SETTINGS, texts


def test_splits_are_disjoint_and_counted(corpus):
    found = texts(corpus)
    assert not {tuple(ids) for ids in found["train"]} & {tuple(ids) for ids in found["validation"]}
    assert len(found["validation"]) >= 2
    facts = corpus.manifest["splits"]
    assert facts["train"]["documents"] + facts["validation"]["documents"] == 40
    assert facts["train"]["tokens"] == len(corpus.train.tokens) == sum(map(len, found["train"]))
    assert facts["train"]["sentences"] == len(corpus.train.sentences) - 1 == 40 * facts["train"]["documents"]


def test_equal_documents_fall_into_one_split(tmp_path):
    path = tmp_path / "twice.txt"
    path.write_text("\n\n".join(prose(12) * 3))
    found = texts(prepare([str(path)], tmp_path / "out", **SETTINGS))
    assert not {tuple(ids) for ids in found["train"]} & {tuple(ids) for ids in found["validation"]}
    assert len(found["train"]) + len(found["validation"]) == 36


def test_all_text_for_validation(text_file, tmp_path):
    corpus = prepare([str(text_file)], tmp_path / "out", **{**SETTINGS, "validation_fraction": 1.0})
    assert len(corpus.train.tokens) == 0
    assert len(corpus.validation.documents) == 41
    Corpus.open(corpus.path)


def test_unigram_entropy(corpus):
    shares = np.bincount(corpus.train.tokens) / len(corpus.train.tokens)
    expected = -sum(share * np.log(share) for share in shares if share)
    assert corpus.unigram_entropy == pytest.approx(expected)
    assert entropy(np.ones(8)) == pytest.approx(np.log(8))
