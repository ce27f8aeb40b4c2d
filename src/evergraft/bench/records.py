"""Records of benchmarks in files: a JSON array for each benchmark, to which every measurement is appended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evergraft.errors import EvergraftError
from evergraft.files.folders import write_atomically

SPARSE, LEAN, STOCK = "sparse", "lean dense", "stock transformers"  # what results of `bench step` call the steps
LEAN_ONEDNN = "lean dense (oneDNN)"


def append(path: Path, result: dict[str, Any]) -> Path:
    """Append a result to the JSON array in a file. The file is made if need be, and is replaced at once or not at all.

    Args:
        path: the file, or a folder, in which the file is named after the benchmark: `step.json`.
        result: what a benchmark returned; its `bench` is the benchmark's name.

    Returns:
        The file.

    Raises:
        EvergraftError: the file holds something else.
    """
    file = path / f"{result['bench']}.json" if path.is_dir() else path
    write_atomically(file, json.dumps([*read(file), result], indent=1) + "\n")
    return file


def read(file: Path) -> list[dict[str, Any]]:
    """Read the results in a file; there are none if it does not exist.

    Raises:
        EvergraftError: the file holds something else.
    """
    try:
        results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    except ValueError:
        results = None
    if not isinstance(results, list):
        raise EvergraftError(f"{file} holds no JSON array of results; choose another file")
    return results
