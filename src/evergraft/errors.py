"""The one error the library raises for bad input."""


class EvergraftError(ValueError):
    """Bad input, told in one sentence: what was wrong, what was expected, what to do.

    The command line prints the sentence and leaves with exit code 2; library users catch it as a `ValueError`.
    """
