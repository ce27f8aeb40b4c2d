"""What a command prints, and how the command line ends."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import typer


def print_result(result: dict[str, Any], as_json: bool, show: Callable[[], object] | None = None) -> None:
    """Print a result on standard output.

    Args:
        result: what JSON is to hold.
        as_json: print one JSON object on one line, for programs.
        show: prints the result for people; by default one line for each entry.
    """
    if as_json:
        typer.echo(json.dumps(result))
    elif show is not None:
        show()
    else:
        for name, value in result.items():
            typer.echo(f"{name}: {json.dumps(value) if isinstance(value, dict) else value}")


def leave(sentence: str, code: int) -> NoReturn:
    """Print a sentence on standard error and end with this exit code; below 128 the sentence is an error."""
    typer.echo(sentence if code >= 128 else f"error: {sentence}", err=True)
    sys.exit(code)


def unreadable(error: OSError) -> str:
    """The sentence for a file that the operating system would not read or write, such as one on a full disk."""
    where = f" {error.filename}" if error.filename else ""
    return f"cannot read or write{where}: {error.strerror or error}; nothing half-written was left behind"
