"""Preparing: round trip, determinism, splits, joining; tampering and kills."""

from __future__ import annotations

import errno
import filecmp
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from transformers import AutoTokenizer

from evergraft import EvergraftError
from evergraft.corpus import Corpus, prepare, prepared
from evergraft.corpus.corpus import entropy
from evergraft.corpus.preparation import TokenDocument, _split_sentences, join_short
from evergraft.corpus.vocabulary import learn_vocabulary, load_vocabulary
from evergraft.files.folders import atomic_folder
from tests.conftest import prose

SETTINGS = {"vocabulary_size": 200, "sequence_length": 32, "validation_fraction": 0.2, "progress": False}
FILES = [f"{split}/{name}.bin" for split in ("train", "validation") for name in ("tokens", "documents", "sentences")]


def texts(corpus: Corpus) -> dict[str, list[list[int]]]:
    return {
        name: [split.tokens[a:b].tolist() for a, b in pairwise(split.documents)]
        for name, split in (("train", corpus.train), ("validation", corpus.validation))
    }


def test_round_trip(corpus):
    found = texts(corpus)
    normal = {" ".join(document.lower().replace(".", " .").split()) for document in prose(40)}
    decoded = {
        " ".join(corpus.tokenizer.decode(ids).replace(".", " .").split())
        for ids in found["train"] + found["validation"]
    }
    assert decoded == normal


def test_splits_are_disjoint_and_counted(corpus):
    found = texts(corpus)
    assert not {tuple(ids) for ids in found["train"]} & {tuple(ids) for ids in found["validation"]}
    assert len(found["validation"]) >= 2
    facts = corpus.manifest["splits"]
    assert facts["train"]["documents"] + facts["validation"]["documents"] == 40
    assert facts["train"]["tokens"] == len(corpus.train.tokens) == sum(map(len, found["train"]))
    assert facts["train"]["sentences"] == len(corpus.train.sentences) - 1 == 40 * facts["train"]["documents"]


def test_sentences_start_where_sentences_start(corpus):
    stop = corpus.tokenizer.token_to_id(".")
    starts = corpus.train.sentences[1:-1].astype(int)
    assert (corpus.train.tokens[starts - 1] == stop).all()


def test_unigram_entropy(corpus):
    shares = np.bincount(corpus.train.tokens) / len(corpus.train.tokens)
    expected = -sum(share * np.log(share) for share in shares if share)
    assert corpus.unigram_entropy == pytest.approx(expected)
    assert entropy(np.ones(8)) == pytest.approx(np.log(8))


def test_two_preparations_are_identical(text_file, corpus, tmp_path):
    again = prepare([str(text_file)], tmp_path / "again", **SETTINGS)
    assert filecmp.cmpfiles(corpus.path, again.path, [*FILES, "tokenizer.json"], shallow=False)[1:] == ([], [])


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


def test_sentence_splitting():
    line = 'He left. "Why?" she asked. It cost 3.5 dollars (a lot!). e.g. this stays'
    assert _split_sentences(line) == [
        "He left.",
        '"Why?" she asked.',
        "It cost 3.5 dollars (a lot!). e.g. this stays",
    ]


def test_given_vocabularies(text_file, corpus, tmp_path):
    vocabulary = corpus.tokenizer.get_vocab()
    plain = tmp_path / "vocab.txt"
    plain.write_text("\n".join(sorted(vocabulary, key=vocabulary.get)))
    for given_one in (plain, corpus.path / "tokenizer.json", corpus.path):
        other = prepare([str(text_file)], tmp_path / f"out-{given_one.name}", tokenizer=given_one, **SETTINGS)
        assert texts(other) == texts(corpus)


def test_learning_is_deterministic():
    first, second = (learn_vocabulary(lambda: prose(20), 200).to_str() for _ in range(2))
    assert first == second


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


def test_refusals(text_file, corpus, tmp_path):
    def refused(match, sources=(str(text_file),), output=None, **settings):
        with pytest.raises(EvergraftError, match=match):
            prepare(list(sources), output or tmp_path / "new", **{**SETTINGS, **settings})
        assert not (tmp_path / "new").exists()
        assert not list(tmp_path.glob("*.partial"))

    short, few = tmp_path / "short.txt", tmp_path / "few.txt"
    short.write_text("Too short.")
    few.write_text("\n\n".join(prose(3)))
    no_specials = tmp_path / "vocab.txt"
    no_specials.write_text("a\nb\n")
    twice, blank, gap = tmp_path / "twice.txt", tmp_path / "blank.txt", tmp_path / "gap.json"
    twice.write_text("a\na\n")
    blank.write_text("a\nb\n\nc\n")
    sparse = json.loads((corpus.path / "tokenizer.json").read_text())
    vocabulary = sparse["model"]["vocab"]
    vocabulary[max(vocabulary, key=vocabulary.get)] = 999
    gap.write_text(json.dumps(sparse))
    refused("exists already", output=corpus.path)
    refused("too few for one input", sources=[str(short)])
    refused("3 distinct documents long enough", sources=[str(few)])
    refused("does not exist", sources=[str(tmp_path / "gone.txt")])
    refused(r"--validation-fraction must lie in \(0, 1\]", validation_fraction=0)
    refused("tokenizer .* does not exist", tokenizer=tmp_path / "gone.json")
    refused(r"it lacks \[PAD\]", tokenizer=no_specials)
    refused("line 2 holds the piece of another", tokenizer=twice)
    refused("line 3 holds no piece", tokenizer=blank)
    refused("pieces have ids up to 999; expected every id from 0 on", tokenizer=gap)
    refused("standard input can be read once", sources=["-", "-"])
    with pytest.raises(EvergraftError, match="make it with"):
        Corpus.open(tmp_path / "gone")


def test_a_full_disk_leaves_nothing(text_file, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("evergraft.corpus.preparation._SplitWriter.append", full)
    with pytest.raises(OSError, match="No space left"):
        prepare([str(text_file)], tmp_path / "out", **SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_a_kill_leaves_no_corpus_and_the_next_try_succeeds(text_file, tmp_path):
    code = (
        "import sys, time\n"
        "from evergraft.corpus import prepare\n"
        "from evergraft.corpus.preparation import _SplitWriter\n"
        "append = _SplitWriter.append\n"
        "def slowly(self, document):\n"
        "    append(self, document)\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(1)\n"
        "_SplitWriter.append = slowly\n"
        f"prepare([{str(text_file)!r}], {str(tmp_path / 'out')!r}, **{SETTINGS!r})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ)
    assert process.stdout.readline() == b"writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out").exists()
    prepare([str(text_file)], tmp_path / "out", **SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_sources_are_prepared_once(text_file, corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("EVERGRAFT_CACHE", str(tmp_path / "cache"))
    own = tmp_path / "own.txt"
    shutil.copy(text_file, own)
    settings = {key: SETTINGS[key] for key in ("vocabulary_size", "sequence_length", "progress")}
    first = prepared([str(own)], **settings)
    stamp = (first / "manifest.json").stat().st_mtime_ns
    assert prepared([str(own)], **settings) == first
    assert (first / "manifest.json").stat().st_mtime_ns == stamp
    time.sleep(0.01)
    own.write_text(own.read_text() + "\n\n" + prose(1, seed=1)[0])
    assert prepared([str(own)], **settings) != first
    assert prepared([str(corpus.path)]) == corpus.path
    with pytest.raises(EvergraftError, match="standard input must be prepared first"):
        prepared(["-"])
    assert load_vocabulary(first).get_vocab_size() <= 200


def test_runs_that_begin_at_once_prepare_once(text_file, tmp_path):
    code = (
        "from evergraft.corpus import prepared\n"
        f"print(prepared([{str(text_file)!r}], vocabulary_size=200, sequence_length=32))\n"
    )
    environment = os.environ | {"EVERGRAFT_CACHE": str(tmp_path)}
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) for _ in range(3)]
    folders = {run.communicate()[0].decode().strip() for run in runs}
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert len(folders) == 1
    Corpus.open(folders.pop())
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1


def test_a_tokenizer_is_known_by_what_it_says(text_file, corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("EVERGRAFT_CACHE", str(tmp_path / "cache"))
    shutil.copy(corpus.path / "tokenizer.json", tmp_path / "copy.json")
    settings = {"sequence_length": 32, "progress": False}
    first = prepared([str(text_file)], tokenizer=corpus.path, **settings)
    assert prepared([str(text_file)], tokenizer=tmp_path / "copy.json", **settings) == first


def test_memory_is_bounded(tmp_path):
    """Three times the text, every other document the same one, takes hardly more memory to prepare."""
    words = ["document", "the", "quick", "brown", "fox", "watches", "dog", ".", *"0123456789"]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *(f"##{digit}" for digit in range(10))]
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(pieces))

    def peak(documents: int) -> int:
        text, sentence = tmp_path / f"{documents}.txt", "The quick brown fox watches the dog. "
        text.write_text("\n\n".join(f"Document {n * (n % 2)}. {sentence * 20}" for n in range(documents)))
        code = (
            "import resource\n"
            "from evergraft.corpus import prepare\n"
            f"prepare([{str(text)!r}], {str(text) + '.out'!r}, tokenizer={str(vocabulary)!r}, progress=False)\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
        )
        return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)

    assert peak(18_000) < 1.15 * peak(6_000)


def test_a_pipe_is_read_once_and_kept(text_file, corpus, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(EvergraftError, match=r"pipe, a pipe, must be prepared first: evergraft corpus prepare .*pipe "):
        prepared([str(tmp_path / "pipe")])
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(text_file.read_bytes()))
    writer.start()
    assert texts(prepare([str(tmp_path / "pipe")], tmp_path / "out", **SETTINGS)) == texts(corpus)
    writer.join()


def test_a_folder_may_hold_its_own_corpus(text_file, corpus, tmp_path):
    shutil.copy(text_file, tmp_path)
    assert texts(prepare([str(tmp_path)], tmp_path / "out", **SETTINGS)) == texts(corpus)


def test_two_that_write_one_folder_do_not_disturb_each_other(tmp_path):
    (tmp_path / "new.partial").mkdir()  # somebody's own
    with atomic_folder(tmp_path / "new") as folder:
        (folder / "file").write_text("whole")
        with pytest.raises(EvergraftError, match="another process is at"), atomic_folder(tmp_path / "new"):
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "new.partial"]
    assert (tmp_path / "new" / "file").read_text() == "whole"


def test_what_safetensors_cannot_write_is_told_as_such(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught, atomic_folder(tmp_path / "new"):
        raise SafetensorError("I/O error: No space left on device")
    assert caught.value.filename == str(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
