"""A hook of mkdocs: puts the help of every command on the page reference/cli.md, so that it cannot go stale."""

from __future__ import annotations

from typing import Any

import typer
from typer.cli import get_docs_for_click

from evergraft.cli import app

MARKER = "<!-- commands -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marker by the commands' own help."""
    if MARKER not in markdown:
        return markdown
    group = typer.main.get_command(app)
    page = get_docs_for_click(obj=group, ctx=typer.Context(group), indent=1, name="evergraft")
    return markdown.replace(MARKER, "\n".join(map(_escaped, page.split("\n"))))


def _escaped(line: str) -> str:
    """A line of the page, in which the help of a flag is text and not markdown: `*embed*` is a pattern."""
    flag, end, text = line.partition("`: ")
    return flag + end + text.replace("*", r"\*").replace("_", r"\_") if flag.startswith("* `") else line
