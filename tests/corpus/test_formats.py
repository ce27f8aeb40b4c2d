"""Every kind of file gives the same documents, and every kind of bad file one sentence."""

from __future__ import annotations

import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from evergraft import EvergraftError
from evergraft.corpus import documents, formats
from tests.corpus.conftest import DOCUMENTS, TEXT, write


@pytest.mark.parametrize(
    "name",
    ["a.txt", "a", "a.txt.gz", "a.txt.xz", "a.txt.zst", "a.jsonl", "a.json", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"],
)
def test_every_kind_of_file(tmp_path, name):
    assert list(documents([str(write(tmp_path, name))])) == DOCUMENTS


def test_windows_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    assert list(documents([str(path)])) == DOCUMENTS


def test_long_documents_are_cut_at_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "LONGEST_DOCUMENT", 100)
    path = tmp_path / "long.txt"
    path.write_text("\n".join(f"line {n:03}" for n in range(100)))
    parts = list(documents([str(path)]))
    assert "\n".join(parts) == path.read_text()
    assert max(map(len, parts)) <= 120


def test_zst_of_several_frames_and_none(tmp_path):
    path = tmp_path / "a.txt.zst"
    text = TEXT.encode()
    path.write_bytes(b"".join(zstandard.compress(text[n : n + 7]) for n in range(0, len(text), 7)))
    assert list(documents([str(path)])) == DOCUMENTS
    path.write_bytes(b"")
    assert list(documents([str(path)])) == []


def test_a_json_line_of_any_length(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "LONGEST_DOCUMENT", 100)
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"text": "\n".join(f"line {n:03}" for n in range(100))}) + "\n")
    parts = list(documents([str(path)]))
    assert "\n".join(parts) == "\n".join(f"line {n:03}" for n in range(100))
    assert max(map(len, parts)) <= 120


def bad(folder, kind):
    path = folder / "bad"
    match kind:
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
    "not utf-8": "is not UTF-8 at or after line",
    "torn xz": "is torn or not a .xz file",
    "torn gz": "is torn or not a .gz file",
    "torn zst": "is torn or not a .zst file: it ends within a frame",
    "not gz": "is torn or not a .gz file",
    "not zst": "is torn or not a .zst file",
    "not json": 'line 2: expected a JSON object with a field "text"',
    "no field": 'line 1: expected a JSON object with a field "text"',
    "no text": "line 1: the field 'text' must be text; got int",
    "not parquet": "is torn or not a parquet file",
    "no column": "has no column 'text'; it has body, title",
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files(tmp_path, kind):
    with pytest.raises(EvergraftError) as caught:
        list(documents([str(bad(tmp_path, kind))]))
    assert BAD[kind] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_page_of_parquet_is_named(tmp_path):
    path = tmp_path / "bad.parquet"
    pq.write_table(pa.table({"text": DOCUMENTS * 500}), path, use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[200:600] = bytes(400)
    path.write_bytes(data)
    with pytest.raises(EvergraftError, match=r"bad\.parquet is damaged: "):
        list(documents([str(path)]))
