"""Where text is: files, globs, folders, data sets, standard input, docstrings."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from evergraft.corpus.formats import (
    COLUMN,
    COMPRESSED,
    JSON_LINES,
    PARQUET,
    TEXT,
    Watch,
    file_documents,
    kind,
    pieces,
    separated_by_blank_lines,
)
from evergraft.errors import EvergraftError

STDIN = "-"
DOCSTRINGS = "builtin:docstrings"


def documents(sources: Sequence[str], watch: Watch | None = None) -> Iterator[str]:
    """Stream the documents of all sources in order; never more than one document is held in memory.

    A source is one of these:

    - a text file in UTF-8, in which a blank line ends a document;
    - JSON lines with a field `text`, or a parquet file with a column `text`;
    - text or JSON lines compressed as `.gz`, `.xz` or `.zst`;
    - a glob, or a folder, of which nothing hidden is read;
    - `-` for standard input, or `builtin:docstrings` for the docstrings of the installed Python packages;
    - the name of a data set for `datasets.load_dataset`: NAME, NAME:CONFIG or NAME:CONFIG:SPLIT.

    Args:
        sources: in the order in which to read them.
        watch: wraps every file that is opened, to follow how far reading is.

    Raises:
        EvergraftError: a source that is missing, empty, torn, not UTF-8, or lacks the field `text`.

    Example:
        >>> longest = max(documents(["books/*.txt.gz"]), key=len)
    """
    for source in sources:
        yield from _documents(source, watch)


def files(source: str) -> list[Path] | None:
    """The files that a source names, sorted; None if it is neither a file, a glob nor a folder.

    Raises:
        EvergraftError: a glob or folder without a file to read, a path that does not exist, or an empty name.
    """
    if not source:
        raise EvergraftError("the name of a text is empty; expected a file, a glob, a folder or a data set")
    path = Path(source).expanduser()
    if path.is_dir():
        return _files_in(path, source)
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


def _files_in(folder: Path, source: str) -> list[Path]:
    kinds = (*TEXT, *JSON_LINES, PARQUET)
    found = sorted(file for file in _visible(folder) if file.is_file() and kind(file) in kinds)
    if not found:
        raise EvergraftError(
            f"folder {source} holds no file to read; expected {' '.join(kinds)}, or these with {' '.join(COMPRESSED)}"
        )
    return found


def _visible(folder: Path) -> Iterator[Path]:
    """All that a folder holds, at any depth, except what is hidden."""
    for path in folder.rglob("*"):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def _looks_like_path(source: str) -> bool:
    return (
        kind(Path(source)) in (*TEXT, *JSON_LINES, PARQUET)
        or Path(source).suffix in COMPRESSED
        or source.startswith((".", "~", os.sep))
        or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?(:[\w.-]*){0,2}", source)
    )


def _documents(source: str, watch: Watch | None) -> Iterator[str]:
    paths = files(source)
    if paths is not None:
        for path in paths:
            yield from file_documents(path, watch)
    elif source == STDIN:
        yield from separated_by_blank_lines(sys.stdin.buffer, "standard input")
    elif source == DOCSTRINGS:
        from evergraft.corpus.docstrings import module_docstrings

        yield from module_docstrings()
    else:
        yield from _data_set(source)


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
        yield from pieces(row.get(COLUMN), f"data set {name}")
