"""The kinds of files that text comes in: plain text, JSON lines and parquet, compressed or not."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import zstandard

from evergraft.errors import EvergraftError

COMPRESSED = (".gz", ".xz", ".zst")
JSON_LINES = (".jsonl", ".ndjson", ".json")
TEXT = (".txt", ".text", ".md", ".rst")
PARQUET = ".parquet"
COLUMN = "text"  # the column, or the field of a JSON object, that holds a document
LONGEST_DOCUMENT = 1 << 20  # characters; a longer document is cut at the end of a line, so that memory stays bounded
TORN = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, zstandard.ZstdError)  # what decompression raises

Watch = Callable[[BinaryIO], BinaryIO]  # wraps an open file, to follow how far reading is


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 text file without their ends, each with its number, from 1 on.

    Args:
        path: the file; one that ends in `.gz`, `.xz` or `.zst` is decompressed.

    Raises:
        EvergraftError: the file is torn or not UTF-8.
    """
    try:
        with path.open("rb") as raw, _decompress(path, raw) as stream:
            yield from _lines(stream, str(path))
    except TORN as error:
        raise EvergraftError(f"{path} is torn or not a {path.suffix} file: {error}") from None


def file_documents(path: Path, watch: Watch | None = None) -> Iterator[str]:
    """The documents of a file of any kind.

    Args:
        path: the file.
        watch: wraps the open file.

    Raises:
        EvergraftError: the file is torn or not UTF-8, or a document is not where it should be.
    """
    try:
        if kind(path) == PARQUET and path.suffix == PARQUET:
            yield from _parquet(path)
            return
        with path.open("rb") as raw, _decompress(path, watch(raw) if watch else raw) as stream:
            if kind(path) in JSON_LINES:
                yield from _json_lines(stream, path)
            else:
                yield from separated_by_blank_lines(stream, str(path))
    except TORN as error:
        raise EvergraftError(f"{path} is torn or not a {path.suffix} file: {error}") from None


def kind(path: Path) -> str:
    """The suffix that says what a file holds beneath its compression: `.jsonl` for a.jsonl.gz."""
    name = path.with_suffix("") if path.suffix in COMPRESSED else path
    return name.suffix


def separated_by_blank_lines(stream: BinaryIO, name: str) -> Iterator[str]:
    """The documents of UTF-8 text in which a blank line ends a document; long documents come in pieces.

    Args:
        stream: the text.
        name: what the text is called in error messages.

    Raises:
        EvergraftError: the text is not UTF-8.
    """
    held: list[str] = []
    size = 0
    for _, line in _lines(stream, name, LONGEST_DOCUMENT):
        if held and (not line.strip() or size + len(line) > LONGEST_DOCUMENT):
            yield "\n".join(held)
            held, size = [], 0
        if line.strip():
            held.append(line)
            size += len(line)
    if held:
        yield "\n".join(held)


def pieces(text: object, where: str) -> Iterator[str]:
    """A document of any length, in pieces of at most LONGEST_DOCUMENT characters.

    Args:
        text: the document.
        where: where it stands, for error messages.

    Raises:
        EvergraftError: it is not text.
    """
    if not isinstance(text, str):
        raise EvergraftError(f"{where}: the field {COLUMN!r} must be text; got {type(text).__name__}")
    one = re.sub(r"\n\s*\n", "\n", text).encode("utf-8", "replace")
    yield from separated_by_blank_lines(io.BytesIO(one), where)


def _decompress(path: Path, raw: BinaryIO) -> BinaryIO:
    match path.suffix:
        case ".gz":
            return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]
        case ".xz":
            return lzma.LZMAFile(raw)  # type: ignore[return-value]
        case ".zst":
            return io.BufferedReader(_ZstdFrames(raw))
        case _:
            return raw


class _ZstdFrames(io.RawIOBase):
    """The decompressed frames of a zstandard file, one after another.

    zstandard's own reader takes a frame that breaks off for the end of the file; this one raises ZstdError.
    """

    def __init__(self, compressed: BinaryIO) -> None:
        self.compressed = compressed
        self.frame: zstandard.ZstdDecompressionObj | None = None  # the frame that is being read
        self.after = b""  # compressed bytes that were read beyond the end of a frame
        self.ready = b""  # decompressed bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self.ready:
            read = self.after or self.compressed.read(io.DEFAULT_BUFFER_SIZE)
            if not read and self.frame:
                raise zstandard.ZstdError("it ends within a frame")
            if not read:
                return 0
            frame = self.frame or zstandard.ZstdDecompressor().decompressobj()
            self.ready, self.after = frame.decompress(read), frame.unused_data
            self.frame = None if frame.eof else frame
        count = min(len(buffer), len(self.ready))
        buffer[:count], self.ready = self.ready[:count], self.ready[count:]
        return count


def _lines(stream: BinaryIO, name: str, longest: int | None = None) -> Iterator[tuple[int, str]]:
    """Lines without their ends, each with its number; a line of more than `longest` characters comes in pieces."""
    text = io.TextIOWrapper(stream, encoding="utf-8-sig")
    number = 1
    try:
        while line := text.readline(longest or -1):
            yield number, line.rstrip("\r\n")
            number += line.endswith("\n")
    except UnicodeDecodeError:
        raise EvergraftError(f"{name} is not UTF-8 at or after line {number}; convert it to UTF-8 first") from None


def _json_lines(stream: BinaryIO, path: Path) -> Iterator[str]:
    for number, line in _lines(stream, str(path)):
        if not line.strip():
            continue
        try:
            text = json.loads(line)[COLUMN]
        except (ValueError, KeyError, TypeError):
            raise EvergraftError(
                f'{path}, line {number}: expected a JSON object with a field "{COLUMN}", such as {{"{COLUMN}": "..."}}'
            ) from None
        yield from pieces(text, f"{path}, line {number}")


def _parquet(path: Path) -> Iterator[str]:
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]

    try:
        file = ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise EvergraftError(f"{path} is torn or not a parquet file: {str(error).splitlines()[0]}") from None
    if COLUMN not in file.schema_arrow.names:
        raise EvergraftError(f"{path} has no column {COLUMN!r}; it has {', '.join(file.schema_arrow.names)}")
    try:
        for batch in file.iter_batches(batch_size=256, columns=[COLUMN]):
            for text in batch.column(0).to_pylist():
                yield from pieces(text, str(path))
    except (pyarrow.ArrowException, OSError) as error:
        raise EvergraftError(f"{path} is damaged: {str(error).splitlines()[0]}") from None
