"""Preparing text: the round trip, determinism, refusals; full disks, kills and bounded memory."""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
import signal
import subprocess
import sys

import pytest

from evergraft import EvergraftError
from evergraft.corpus import Corpus, prepare
from tests.conftest import prose
from tests.corpus.conftest import FILES, SETTINGS, texts


def test_round_trip(corpus):
    found = texts(corpus)
    normal = {" ".join(document.lower().replace(".", " .").split()) for document in prose(40)}
    decoded = {
        " ".join(corpus.tokenizer.decode(ids).replace(".", " .").split())
        for ids in found["train"] + found["validation"]
    }
    assert decoded == normal


def test_two_preparations_are_identical(text_file, corpus, tmp_path):
    again = prepare([str(text_file)], tmp_path / "again", **SETTINGS)
    assert filecmp.cmpfiles(corpus.path, again.path, [*FILES, "tokenizer.json"], shallow=False)[1:] == ([], [])


def test_given_vocabularies(text_file, corpus, tmp_path):
    vocabulary = corpus.tokenizer.get_vocab()
    plain = tmp_path / "vocab.txt"
    plain.write_text("\n".join(sorted(vocabulary, key=vocabulary.get)))
    for given_one in (plain, corpus.path / "tokenizer.json", corpus.path):
        other = prepare([str(text_file)], tmp_path / f"out-{given_one.name}", tokenizer=given_one, **SETTINGS)
        assert texts(other) == texts(corpus)


def test_refusals(text_file, corpus, tmp_path):
    def refused(match, sources=(str(text_file),), output=None, **settings):
        with pytest.raises(EvergraftError, match=match):
            prepare(list(sources), output or tmp_path / "new", **{**SETTINGS, **settings})
        assert not (tmp_path / "new").exists()
        assert not list(tmp_path.glob("*.partial"))

    short, few = tmp_path / "short.txt", tmp_path / "few.txt"
    short.write_text("Too short.")
    few.write_text("\n\n".join(prose(3)))
    refused("exists already", output=corpus.path)
    refused("too few for one input", sources=[str(short)])
    refused("3 distinct documents long enough", sources=[str(few)])
    refused("does not exist", sources=[str(tmp_path / "gone.txt")])
    refused(r"`validation_fraction` must lie in \(0, 1\]", validation_fraction=0)
    refused("tokenizer .* does not exist", tokenizer=tmp_path / "gone.json")
    refused("`vocabulary_size` must be 128 to 1048576 to learn from text; got 100", vocabulary_size=100)
    refused("standard input can be read only once", sources=["-", "-"])
    with pytest.raises(EvergraftError, match="make it with"):
        Corpus.open(tmp_path / "gone")


def test_a_full_disk_leaves_nothing(text_file, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("evergraft.corpus.splits._SplitWriter.append", full)
    with pytest.raises(OSError, match="No space left"):
        prepare([str(text_file)], tmp_path / "out", **SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_a_kill_leaves_no_corpus_and_the_next_try_succeeds(text_file, tmp_path):
    code = (
        "import sys, time\n"
        "from evergraft.corpus import prepare\n"
        "from evergraft.corpus.splits import _SplitWriter\n"
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


def test_a_folder_may_hold_its_own_corpus(text_file, corpus, tmp_path):
    shutil.copy(text_file, tmp_path)
    assert texts(prepare([str(tmp_path)], tmp_path / "out", **SETTINGS)) == texts(corpus)
