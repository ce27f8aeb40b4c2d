"""Results of benches in files: JSON arrays, to which each run of a bench is added."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evergraft.errors import EvergraftError
from evergraft.files.folders import write_atomically


def check_destination(path: Path | None, option: str, holds_results: bool = False) -> None:
    """Find out before anything is measured whether the result can be written.

    Args:
        holds_results: whether `path` is a file of results, or a folder for them; otherwise it is a file to be made.

    Raises:
        EvergraftError: the folder of `path` does not exist, or `path` is not what it should be.
    """
    if path is not None and not path.parent.is_dir():
        raise EvergraftError(f"{option} {path}: the folder {path.parent} does not exist; make it first")
    if path is not None and path.is_dir() and not holds_results:
        raise EvergraftError(f"{option} {path} is a folder; name the file to write")
    if path is not None and path.is_file() and holds_results:
        read(path)


def append(path: Path, result: dict[str, Any]) -> Path:
    """Add a result to the JSON array in a file, which is made if need be; atomic.

    Args:
        path: the file, or a folder in which the file is named after the bench.

    Raises:
        EvergraftError: the file holds something else.
    """
    file = path / f"{result['bench']}.json" if path.is_dir() else path
    write_atomically(file, json.dumps([*read(file), result], indent=1) + "\n")
    return file


def read(file: Path) -> list[dict[str, Any]]:
    """The results in a file; none if it does not exist.

    Raises:
        EvergraftError: it holds something else.
    """
    try:
        results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    except ValueError:
        results = None
    if not isinstance(results, list):
        raise EvergraftError(f"{file} holds no JSON array of results; choose another --output")
    return results
