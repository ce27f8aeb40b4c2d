"""The cache: text is prepared once, however many runs name it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time

import pytest

from evergraft import EvergraftError
from evergraft.corpus import Corpus, prepare, prepared
from evergraft.corpus.vocabulary import load_vocabulary
from tests.conftest import prose
from tests.corpus.conftest import SETTINGS, texts


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


def test_a_pipe_is_read_once_and_kept(text_file, corpus, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(EvergraftError, match=r"pipe, a pipe, must be prepared first: evergraft corpus prepare .*pipe "):
        prepared([str(tmp_path / "pipe")])
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(text_file.read_bytes()))
    writer.start()
    assert texts(prepare([str(tmp_path / "pipe")], tmp_path / "out", **SETTINGS)) == texts(corpus)
    writer.join()
