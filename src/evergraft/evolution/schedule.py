"""When a topology is updated, and what share of its blocks each update prunes."""

from __future__ import annotations

import math

from evergraft.evolution.config import EvolutionConfig


class UpdateSchedule:
    """Updates evenly spaced over the share `update_until` of training; progress runs from 0 (start) to 1 (end).

    Update k = 0 ... updates - 1 falls due at progress (k + 1/2) / updates of that share. The interval is the paper's
    T/n steps (docs/method.md, section 2); it begins half an interval late, so that no update falls on the untrained
    start or on the end, where nothing could grow any more.

    Args:
        config: its fields `updates`, `prune_ratio`, `prune_decay` and `update_until` are used.

    Example:
        >>> UpdateSchedule(EvolutionConfig(updates=10)).due(0.5)
        5
    """

    def __init__(self, config: EvolutionConfig) -> None:
        self.config = config

    def due(self, progress: float) -> int:
        """How many updates have fallen due by `progress` in [0, 1]."""
        rounding = 1e-9  # step / steps may fall a hair short of the place where an update is due
        return math.floor(self.config.updates * self._share(progress) + 0.5 + rounding)

    def ratio(self, progress: float) -> float:
        """The share of active blocks that an update at `progress` prunes."""
        first, progress = self.config.prune_ratio, self._share(progress)
        match self.config.prune_decay:
            case "cosine":
                return first / 2 * (1 + math.cos(math.pi * progress))
            case "linear":
                return first * (1 - progress)
            case "constant":
                return first

    def _share(self, progress: float) -> float:
        return min(progress / self.config.update_until, 1.0)
