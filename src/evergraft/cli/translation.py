"""Error messages in the words of the command line.

The library speaks of arguments: "`batch_size` must be at least 1". Whoever typed a command knows flags: "--batch-size
must be at least 1".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand

from evergraft.errors import EvergraftError


class Command(TyperCommand):
    """A command that raises an EvergraftError of the library again with the command's own flags in it."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except EvergraftError as error:
            raise EvergraftError(with_flags(str(error), self.params)) from None


def with_flags(sentence: str, parameters: Iterable[Any]) -> str:
    """Turn every name in backticks that is a parameter of a command into its flag.

    A positional argument becomes its metavar, such as RUN. Whatever else stands in backticks stays as it is.

    Args:
        sentence: an error message of the library.
        parameters: the command's parameters, as typer holds them.

    Example:
        >>> with_flags("`batch_size` must be at least 1; see `field: value`", command.params)
        '--batch-size must be at least 1; see `field: value`'
    """
    spellings = {parameter.name: _spelling(parameter) for parameter in parameters}
    return re.sub(r"`(\w+)`", lambda name: spellings.get(name[1], name[0]), sentence)


def _spelling(parameter: Any) -> str:
    """How a parameter is written at the command line."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    return str(parameter.opts[0])
