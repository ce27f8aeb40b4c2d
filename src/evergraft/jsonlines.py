"""A log of JSON objects, one a line, that a resumed run continues where its checkpoint was."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


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
        """The entries so far; a last line torn by a kill is passed over."""
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8") as file:
            for line in file:
                if line.endswith("\n"):
                    yield json.loads(line)

    def rewind(self, step: int) -> None:
        """Drop the entries after `step`, which a resumed run writes again; atomic."""
        if not self.path.exists():
            return
        kept = [entry for entry in self if entry["step"] <= step]
        partial = self.path.with_name(self.path.name + ".partial")
        partial.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")
        os.replace(partial, self.path)
