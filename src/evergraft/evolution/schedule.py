"""When a topology is updated, and what share of its blocks each update prunes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from evergraft.errors import EvergraftError

Decay = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True)
class UpdateSchedule:
    """`updates` updates, evenly spaced over training; progress runs from 0 (start) to 1 (end).

    Update k = 0 ... updates - 1 falls due at progress (k + 1/2) / updates: every T/n steps of METHOD (arXiv 2108.06277,
    section 2), placed so that none falls on the untrained start or on the end, where nothing could grow any more.

    Attributes:
        updates: how many; 0 is static sparsity.
        prune_ratio: share of the active blocks that the first update prunes, in [0, 1].
        decay: how that share falls with progress: `cosine` (METHOD) or `linear` to zero, or `constant`.
    """

    updates: int = 80
    prune_ratio: float = 0.5
    decay: Decay = "cosine"

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            EvergraftError: a negative count, a ratio outside [0, 1], an unknown decay.
        """
        if self.updates < 0:
            raise EvergraftError(f"updates must be 0 (static sparsity) or more; got {self.updates}")
        if not 0 <= self.prune_ratio <= 1:
            raise EvergraftError(f"prune_ratio must lie in [0, 1]; got {self.prune_ratio}")
        if self.decay not in get_args(Decay):
            raise EvergraftError(f"decay must be one of {', '.join(get_args(Decay))}; got {self.decay!r}")

    def due(self, progress: float) -> int:
        """How many updates have fallen due by `progress` in [0, 1]."""
        rounding = 1e-9  # step / steps may fall a hair short of the place where an update is due
        return math.floor(self.updates * min(progress, 1.0) + 0.5 + rounding)

    def ratio(self, progress: float) -> float:
        """The share of active blocks that an update at `progress` prunes."""
        match self.decay:
            case "cosine":
                return self.prune_ratio / 2 * (1 + math.cos(math.pi * progress))
            case "linear":
                return self.prune_ratio * (1 - progress)
            case "constant":
                return self.prune_ratio
