"""Every kind of source gives the same documents, and every kind of bad source one sentence."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import sys

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from evergraft import EvergraftError
from evergraft.corpus import documents, sources
from evergraft.corpus.docstrings import _prose

DOCUMENTS = ["First document.\nIts second line.", "Second document, with an é.", "Third."]
TEXT = "\n\n".join(DOCUMENTS) + "\n"
LINES = "".join(json.dumps({"text": document}) + "\n" for document in DOCUMENTS)


def write(folder, name):
    path = folder / name
    if ".parquet" in name:
        pq.write_table(pa.table({"text": DOCUMENTS}), path)
        return path
    data = (LINES if "jsonl" in name or "json" in name else TEXT).encode()
    compress = {".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.compress}.get(path.suffix, bytes)
    path.write_bytes(compress(data))
    return path


@pytest.mark.parametrize(
    "name",
    ["a.txt", "a", "a.txt.gz", "a.txt.xz", "a.txt.zst", "a.jsonl", "a.json", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"],
)
def test_every_kind_of_file(tmp_path, name):
    assert list(documents([str(write(tmp_path, name))])) == DOCUMENTS


def test_globs_and_folders_in_sorted_order(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("b.txt", "a.txt.gz", "in/c.jsonl"):
        write(tmp_path, name)
    (tmp_path / "ignored.bin").write_bytes(b"\0")
    assert list(documents([str(tmp_path)])) == DOCUMENTS * 3
    assert list(documents([str(tmp_path / "*.txt*")])) == DOCUMENTS * 2


def test_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert list(documents(["-"])) == DOCUMENTS


def test_windows_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    assert list(documents([str(path)])) == DOCUMENTS


def test_data_set_by_name(monkeypatch):
    asked = []

    def load(path, config, *, split, streaming):
        asked.append((path, config, split, streaming))
        return datasets.Dataset.from_dict({"text": DOCUMENTS}).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert list(documents(["some/set", "set:en:test"])) == DOCUMENTS * 2
    assert asked == [("some/set", None, "train", True), ("set", "en", "test", True)]


def test_long_documents_are_cut_at_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "LONGEST_DOCUMENT", 100)
    path = tmp_path / "long.txt"
    path.write_text("\n".join(f"line {n:03}" for n in range(100)))
    parts = list(documents([str(path)]))
    assert "\n".join(parts) == path.read_text()
    assert max(map(len, parts)) <= 120


def test_docstrings_are_prose_alone(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        '"""This module holds functions that a careful reader will certainly want to know about.\n\n'
        '>>> print("not prose, although it is inside of a docstring of a module")\n\n'
        ":param x: this one is a field and therefore is not prose in the sense of this function\n\n"
        'Short words.\n"""\n'
        "def f():\n"
        '    """Return the answer to the question that everybody has been asking for many years."""\n'
    )
    assert _prose(path) == [
        "This module holds functions that a careful reader will certainly want to know about.",
        "Return the answer to the question that everybody has been asking for many years.",
    ]
    path.write_text("def broken(:\n")
    assert _prose(path) == []


def bad(folder, kind):
    path = folder / "bad"
    match kind:
        case "missing.txt":
            return folder / "missing.txt"
        case "empty folder":
            (folder / "empty").mkdir()
            return folder / "empty"
        case "no match":
            return folder / "*.nothing"
        case "not utf-8":
            path.write_bytes(b"fine\nnot \xff fine\n")
        case "torn xz":
            path = folder / "bad.txt.xz"
            path.write_bytes(lzma.compress(TEXT.encode() * 100)[:-20])
        case "torn gz":
            path = folder / "bad.txt.gz"
            path.write_bytes(gzip.compress(TEXT.encode() * 100)[:-20])
        case "torn zst":
            path = folder / "bad.txt.zst"
            path.write_bytes(zstandard.compress(TEXT.encode() * 100)[:-20])
        case "nameless":
            return ""
        case "not gz":
            path = folder / "bad.txt.gz"
            path.write_bytes(TEXT.encode())
        case "not zst":
            path = folder / "bad.txt.zst"
            path.write_bytes(TEXT.encode())
        case "not json":
            path = folder / "bad.jsonl"
            path.write_text('{"text": "fine"}\n{"text": \n')
        case "no field":
            path = folder / "bad.jsonl"
            path.write_text('{"body": "fine"}\n')
        case "no text":
            path = folder / "bad.jsonl"
            path.write_text('{"text": 7}\n')
        case "not parquet":
            path = folder / "bad.parquet"
            path.write_bytes(b"no parquet")
        case "no column":
            path = folder / "bad.parquet"
            pq.write_table(pa.table({"body": ["x"], "title": ["y"]}), path)
    return path


BAD = {
    "missing.txt": "missing.txt does not exist; expected a text file",
    "empty folder": "holds no file to read",
    "no match": "no file matches",
    "not utf-8": "is not UTF-8 at or after line",
    "torn xz": "is torn or not a .xz file",
    "torn gz": "is torn or not a .gz file",
    "torn zst": "is torn or not a .zst file: it ends within a frame",
    "nameless": "the name of a text is empty",
    "not gz": "is torn or not a .gz file",
    "not zst": "is torn or not a .zst file",
    "not json": 'line 2: expected a JSON object with a field "text"',
    "no field": 'line 1: expected a JSON object with a field "text"',
    "no text": "line 1: the field 'text' must be text; got int",
    "not parquet": "is torn or not a parquet file",
    "no column": "has no column 'text'; it has body, title",
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_sources(tmp_path, kind):
    with pytest.raises(EvergraftError) as caught:
        list(documents([str(bad(tmp_path, kind))]))
    assert BAD[kind] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_data_set(monkeypatch):
    def load(*args, **kwargs):
        raise ConnectionError("no network\nhere")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(EvergraftError, match="nor a data set that loads: no network here"):
        list(documents(["no-such-set"]))


def test_zst_of_several_frames_and_none(tmp_path):
    path = tmp_path / "a.txt.zst"
    text = TEXT.encode()
    path.write_bytes(b"".join(zstandard.compress(text[n : n + 7]) for n in range(0, len(text), 7)))
    assert list(documents([str(path)])) == DOCUMENTS
    path.write_bytes(b"")
    assert list(documents([str(path)])) == []


def test_a_json_line_of_any_length(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "LONGEST_DOCUMENT", 100)
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"text": "\n".join(f"line {n:03}" for n in range(100))}) + "\n")
    parts = list(documents([str(path)]))
    assert "\n".join(parts) == "\n".join(f"line {n:03}" for n in range(100))
    assert max(map(len, parts)) <= 120


def test_nothing_hidden_is_read_from_a_folder(tmp_path):
    write(tmp_path, "a.txt")
    (tmp_path / ".git").mkdir()
    write(tmp_path / ".git", "b.txt")
    write(tmp_path, ".c.txt")
    assert list(documents([str(tmp_path)])) == DOCUMENTS


def test_a_damaged_page_of_parquet_is_named(tmp_path):
    path = tmp_path / "bad.parquet"
    pq.write_table(pa.table({"text": DOCUMENTS * 500}), path, use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[200:600] = bytes(400)
    path.write_bytes(data)
    with pytest.raises(EvergraftError, match=r"bad\.parquet is damaged: "):
        list(documents([str(path)]))
