"""Wherever text is: globs and folders, standard input, data sets."""

from __future__ import annotations

import io
import subprocess
import sys

import datasets
import pytest

from evergraft import EvergraftError
from evergraft.corpus import documents
from tests.corpus.conftest import DOCUMENTS, TEXT, write


def test_globs_and_folders_in_sorted_order(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("b.txt", "a.txt.gz", "in/c.jsonl"):
        write(tmp_path, name)
    (tmp_path / "ignored.bin").write_bytes(b"\0")
    assert list(documents([str(tmp_path)])) == DOCUMENTS * 3
    assert list(documents([str(tmp_path / "*.txt*")])) == DOCUMENTS * 2


def test_nothing_hidden_is_read_from_a_folder(tmp_path):
    write(tmp_path, "a.txt")
    (tmp_path / ".git").mkdir()
    write(tmp_path / ".git", "b.txt")
    write(tmp_path, ".c.txt")
    assert list(documents([str(tmp_path)])) == DOCUMENTS


def test_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert list(documents(["-"])) == DOCUMENTS


def test_data_set_by_name(monkeypatch):
    asked = []

    def load(path, config, *, split, streaming):
        asked.append((path, config, split, streaming))
        return datasets.Dataset.from_dict({"text": DOCUMENTS}).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert list(documents(["some/set", "set:en:test"])) == DOCUMENTS * 2
    assert asked == [("some/set", None, "train", True), ("set", "en", "test", True)]


def test_unknown_data_set(monkeypatch):
    def load(*args, **kwargs):
        raise ConnectionError("no network\nhere")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(EvergraftError, match="nor a data set that loads: no network here"):
        list(documents(["no-such-set"]))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{folder}/missing.txt", "missing.txt does not exist; expected a text file"),
        ("{folder}/empty", "holds no file to read"),
        ("{folder}/*.nothing", "no file matches"),
        ("", "the name of a text is empty"),
    ],
)
def test_bad_sources(tmp_path, source, says):
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvergraftError, match=says):
        list(documents([source.format(folder=tmp_path)]))


def test_importing_the_corpus_needs_nothing_heavy():
    heavy = {"torch", "transformers", "datasets", "pyarrow"}
    code = f"import sys, evergraft.corpus; heavy = {heavy} & set(sys.modules); assert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
