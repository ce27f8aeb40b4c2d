"""The one error the library raises for bad input."""

from collections.abc import Iterator
from contextlib import contextmanager


class EvergraftError(ValueError):
    """Bad input, told in one sentence: what was wrong, what was expected, what to do.

    The command line prints the sentence and ends with exit code 2; library users can also catch it as a `ValueError`.

    Example:
        >>> try:
        ...     evergraft.SparsityConfig(density=2)
        ... except evergraft.EvergraftError as error:
        ...     print(error)
        `density`: Input should be less than or equal to 1; got 2
    """


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Put `what` before the sentence of an EvergraftError that is raised within the block.

    Example:
        >>> with naming("layer 3"):
        ...     raise EvergraftError("too few blocks")
        Traceback (most recent call last):
        evergraft.errors.EvergraftError: layer 3: too few blocks
    """
    try:
        yield
    except EvergraftError as error:
        raise EvergraftError(f"{what}: {error}") from None
