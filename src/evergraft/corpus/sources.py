"""Documents from wherever text is: files of many kinds, globs, folders, data sets, standard input, docstrings."""

from __future__ import annotations

import glob
import gzip
import io
import json
import lzma
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import zstandard

from evergraft.errors import EvergraftError

STDIN = "-"
DOCSTRINGS = "builtin:docstrings"
COMPRESSED = (".gz", ".xz", ".zst")
JSON_LINES = (".jsonl", ".ndjson", ".json")
TEXT = (".txt", ".text", ".md", ".rst")
PARQUET = ".parquet"
LONGEST_DOCUMENT = 1 << 20  # characters; longer ones are cut at a line's end, so that memory stays bounded
COLUMN = "text"
TORN = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, zstandard.ZstdError)  # what decompression raises

Watch = Callable[[BinaryIO], BinaryIO]


def documents(sources: Sequence[str], watch: Watch | None = None) -> Iterator[str]:
    """Stream the documents of all sources, in order; never more than one document is held.

    A source is a text file (a blank line ends a document; UTF-8), JSON lines (field `text`), either of them `.gz`,
    `.xz` or `.zst`, a parquet file (column `text`), a glob, a folder (of which nothing hidden is read), `-` (standard
    input), `builtin:docstrings`, or else the name of a data set for `datasets.load_dataset`: NAME, NAME:CONFIG or
    NAME:CONFIG:SPLIT.

    Args:
        sources: in the order to read them.
        watch: wraps every file opened, to follow how far reading is.

    Raises:
        EvergraftError: a source that is missing, empty, torn, not UTF-8, or lacks the field.
    """
    for source in sources:
        yield from _documents(source, watch)


def files(source: str) -> list[Path] | None:
    """The files a source names, sorted; None if it is none of file, glob and folder.

    Raises:
        EvergraftError: a glob or folder without a file to read, a path that does not exist, or an empty one.
    """
    if not source:
        raise EvergraftError("the name of a text is empty; expected a file, a glob, a folder or a data set")
    path = Path(source).expanduser()
    if path.is_dir():
        kinds = (*TEXT, *JSON_LINES, PARQUET)
        found = sorted(file for file in _visible(path) if file.is_file() and _kind(file) in kinds)
        if not found:
            raise EvergraftError(
                f"folder {source} holds no file to read; expected {' '.join(kinds)}, or these with "
                f"{' '.join(COMPRESSED)}"
            )
        return found
    if path.exists():
        return [path]
    if glob.has_magic(source):
        found = sorted(file for name in glob.glob(str(path), recursive=True) if (file := Path(name)).is_file())
        if not found:
            raise EvergraftError(f"no file matches {source}")
        return found
    if source in (STDIN, DOCSTRINGS) or not _looks_like_path(source):
        return None
    raise EvergraftError(f"{source} does not exist; expected a text file, a glob, a folder or the name of a data set")


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The numbered lines of a UTF-8 text file, `.gz`, `.xz` or `.zst` too, without their ends.

    Raises:
        EvergraftError: the file is torn or not UTF-8.
    """
    try:
        with path.open("rb") as raw, _decompress(path, raw) as stream:
            yield from _lines(stream, str(path))
    except TORN as error:
        raise EvergraftError(f"{path} is torn or not a {path.suffix} file: {error}") from None


def _documents(source: str, watch: Watch | None) -> Iterator[str]:
    paths = files(source)
    if paths is not None:
        for path in paths:
            yield from _file_documents(path, watch)
    elif source == STDIN:
        yield from _blank_line_separated(sys.stdin.buffer, "standard input")
    elif source == DOCSTRINGS:
        from evergraft.corpus.docstrings import module_docstrings

        yield from module_docstrings()
    else:
        yield from _data_set(source)


def _file_documents(path: Path, watch: Watch | None) -> Iterator[str]:
    try:
        if _kind(path) == PARQUET and path.suffix == PARQUET:
            yield from _parquet(path)
            return
        with path.open("rb") as raw, _decompress(path, watch(raw) if watch else raw) as stream:
            if _kind(path) in JSON_LINES:
                yield from _json_lines(stream, path)
            else:
                yield from _blank_line_separated(stream, str(path))
    except TORN as error:
        raise EvergraftError(f"{path} is torn or not a {path.suffix} file: {error}") from None


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
    """Frames one after another, decompressed; zstandard's own reader takes a torn one for the end of the file."""

    def __init__(self, compressed: BinaryIO) -> None:
        self.compressed = compressed
        self.frame: zstandard.ZstdDecompressionObj | None = None  # of which some was read, but not all
        self.after = self.ready = b""  # read beyond a frame's end; decompressed

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
    """Numbered lines without their ends; of one longer than `longest` characters, pieces."""
    text = io.TextIOWrapper(stream, encoding="utf-8-sig")
    number = 1
    try:
        while line := text.readline(longest or -1):
            yield number, line.rstrip("\r\n")
            number += line.endswith("\n")
    except UnicodeDecodeError:
        raise EvergraftError(f"{name} is not UTF-8 at or after line {number}; convert it to UTF-8 first") from None


def _blank_line_separated(stream: BinaryIO, name: str) -> Iterator[str]:
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
        yield from _pieces(text, f"{path}, line {number}")


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
                yield from _pieces(text, str(path))
    except (pyarrow.ArrowException, OSError) as error:
        raise EvergraftError(f"{path} is damaged: {str(error).splitlines()[0]}") from None


def _data_set(name: str) -> Iterator[str]:
    import datasets  # type: ignore[import-untyped]

    path, *rest = name.split(":")
    config, split = [*rest, "", ""][:2]
    try:
        rows = datasets.load_dataset(path, config or None, split=split or "train", streaming=True)
        columns = rows.column_names
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise EvergraftError(f"{name} is no file, glob or folder here, nor a data set that loads: {reason}") from None
    if columns and COLUMN not in columns:
        raise EvergraftError(f"data set {name} has no column {COLUMN!r}; it has {', '.join(columns)}")
    for row in rows:
        yield from _pieces(row.get(COLUMN), f"data set {name}")


def _pieces(text: object, where: str) -> Iterator[str]:
    """A document of any length in pieces that are short enough."""
    if not isinstance(text, str):
        raise EvergraftError(f"{where}: the field {COLUMN!r} must be text; got {type(text).__name__}")
    yield from _blank_line_separated(io.BytesIO(re.sub(r"\n\s*\n", "\n", text).encode("utf-8", "replace")), where)


def _visible(folder: Path) -> Iterator[Path]:
    """What a folder holds, to any depth, but for what is hidden."""
    for path in folder.rglob("*"):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def _kind(path: Path) -> str:
    """The suffix that says what a file holds, under its compression."""
    name = path.with_suffix("") if path.suffix in COMPRESSED else path
    return name.suffix


def _looks_like_path(source: str) -> bool:
    return (
        _kind(Path(source)) in (*TEXT, *JSON_LINES, PARQUET)
        or Path(source).suffix in COMPRESSED
        or source.startswith((".", "~", os.sep))
        or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?(:[\w.-]*){0,2}", source)
    )
