"""The tables of a report, one a file: a new table is a module here that defines `TABLE`, and its test."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from evergraft.registry import Registry
from evergraft.study.collection import Collection
from evergraft.study.sections import PART, SECTIONS, Part, parts_of


@dataclass(frozen=True)
class Table:
    """A table as text, which Markdown and HTML share.

    Attributes:
        key: names it in a page's links.
        title: what it shows.
        note: how to read it; empty where the table before it says so.
        header: the title of each column, one word or two.
        rows: as many cells as the header has; the first is the row's name.
    """

    key: str
    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @cached_property
    def wordy(self) -> set[int]:
        """The indices of the columns that hold words, not numbers."""
        columns = enumerate(zip(*self.rows, strict=True))
        return {index for index, cells in columns if any(cell[:1].isalpha() for cell in cells)}

    def to_markdown(self) -> str:
        """The table in Markdown: a heading, the note and a pipe table."""
        rule = "|---|" + "---:|" * (len(self.header) - 1)
        lines = [
            "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (self.header, *self.rows)
        ]
        note = [self.note, ""] if self.note else []
        return "\n".join([f"## {self.title}", "", *note, lines[0], rule, *lines[1:], ""])


TABLES: Registry[Part[Table]] = Registry("table", "evergraft.tables", __name__, attribute="TABLE", methods=PART)


def tables(collection: Collection) -> list[Table]:
    """Every table that has a row for these runs, in the order of the report.

    Example:
        >>> [table.key for table in tables(collect([Path("runs/tiny")]))]
        ['summary', 'memory']
    """
    return [table for section in SECTIONS for table in parts_of(section, TABLES, collection) if table.rows]
