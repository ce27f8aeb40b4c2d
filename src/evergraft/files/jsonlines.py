"""A log of JSON objects, one on each line, that a resumed run continues where its checkpoint was."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evergraft.errors import EvergraftError
from evergraft.files.folders import sync, write_atomically


class JsonLines:
    """An append-only log whose entries hold a `step`.

    Args:
        path: the file; its folder is made on first use.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, *entries: Mapping[str, Any]) -> None:
        """Write the entries in one go."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(entry) + "\n" for entry in entries))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The entries so far; a last line torn by a kill or a power cut is passed over.

        Raises:
            EvergraftError: another line is not JSON, or a line is not an object with a `step`.
        """
        if not self.path.exists():
            return
        lines = self.path.read_bytes().split(b"\n")[:-1]
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
            except ValueError:
                if number == len(lines):
                    return
                raise EvergraftError(f"{self.path} is torn: line {number} is not JSON; remove that line") from None
            if not isinstance(entry, dict) or "step" not in entry:
                raise EvergraftError(f"{self.path} is torn: line {number} holds no step; remove that line")
            yield entry

    def sync(self) -> None:
        """Wait until all that was written is on the disk, so that no checkpoint outlives the lines before it."""
        if self.path.exists():
            sync(self.path)

    def rewind(self, step: int) -> None:
        """Drop the entries after `step`, which a resumed run writes again; the file is replaced whole or not at all."""
        if self.path.exists():
            kept = [entry for entry in self if entry["step"] <= step]
            write_atomically(self.path, "".join(json.dumps(entry) + "\n" for entry in kept))
