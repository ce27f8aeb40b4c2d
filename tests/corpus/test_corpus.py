"""The reader of a prepared corpus: its tokenizer in transformers, and every kind of damage."""

from __future__ import annotations

import json
import shutil

import pytest
from transformers import AutoTokenizer

from evergraft import EvergraftError
from evergraft.corpus import Corpus
from tests.corpus.conftest import FILES


def test_transformers_tokenizer(corpus, tmp_path):
    corpus.transformers_tokenizer().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    encoded = tokenizer("The cat watches the house.", "It follows.")
    assert tokenizer.decode(encoded["input_ids"]).startswith("[CLS] the cat watches the house. [SEP]")
    assert encoded["token_type_ids"][0] == 0
    assert encoded["token_type_ids"][-1] == 1
    assert (tokenizer.mask_token, tokenizer.pad_token_id) == ("[MASK]", corpus.special_ids.pad)


@pytest.mark.parametrize("damage", ["truncated", "changed", "removed"])
@pytest.mark.parametrize("name", [*FILES, "tokenizer.json", "manifest.json"])
def test_damage_is_told_by_name(corpus, tmp_path, name, damage):
    copy = tmp_path / "copy"
    shutil.copytree(corpus.path, copy)
    file = copy / name
    data = file.read_bytes()
    if damage == "removed":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(data[: len(data) // 2])
    elif name == "manifest.json":
        file.write_text(json.dumps(json.loads(data) | {"format": 99}))
    else:
        file.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(EvergraftError) as caught:
        Corpus.open(copy)
    assert str(copy) in str(caught.value)
    assert name in str(caught.value) or "format 99" in str(caught.value)
