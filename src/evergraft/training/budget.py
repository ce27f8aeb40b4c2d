"""How long a run is, in steps or by the clock, and the learning rate that follows it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """The progress of a run, from 0 to 1, by optimiser steps or by training time.

    Training time leaves out validation and saving; in a resumed run it continues from the time that was reached.

    Args:
        steps: the run's length in optimiser steps; None if the clock decides.
        seconds: the run's length in seconds of training time; used where `steps` is None.

    Example:
        >>> Budget(steps=100, seconds=None).progress(25)
        0.25
    """

    def __init__(self, steps: int | None, seconds: float | None) -> None:
        self.steps = steps
        self.seconds = seconds
        self._before = 0.0
        self._since: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds of training time so far."""
        return self._before + (0.0 if self._since is None else time.monotonic() - self._since)

    def start(self, elapsed: float = 0.0) -> None:
        """Start the clock, at the `elapsed` seconds that a resumed run had reached."""
        self._before, self._since = elapsed, time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock, if it runs, until the block ends."""
        running, self._before = self._since is not None, self.elapsed
        self._since = None
        try:
            yield
        finally:
            self._since = time.monotonic() if running else None

    def progress(self, step: int) -> float:
        """The share of the run that is done after `step` optimiser steps."""
        done = step / self.steps if self.steps is not None else self.elapsed / (self.seconds or 1.0)
        return min(done, 1.0)


def rate_factor(progress: float, warmup: float) -> float:
    """The learning rate divided by its peak: it rises from 0 to 1 during warmup, then falls to 0, both linearly.

    Args:
        progress: the share of the run that is done, in [0, 1].
        warmup: the share of the run in which the rate rises, in [0, 1).
    """
    return progress / warmup if progress < warmup else (1 - progress) / (1 - warmup)
