"""The one error the library raises for bad input."""


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
