"""How first values are drawn: one rule a file, chosen by name (`SparsityConfig.initialisation`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from evergraft.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from evergraft.sparse.topology import BlockTopology


class Initialisation(Protocol):
    """A rule for first values."""

    def __call__(self, values: Tensor, topology: BlockTopology, std: float, generator: torch.Generator | None) -> None:
        """Draw values in place.

        Args:
            values: floating [active, R, C], without gradient.
            topology: which blocks they are.
            std: the standard deviation asked for.
            generator: where all randomness comes from, on the device of `values`; None is torch's default generator.
        """
        ...


INITIALISATIONS: Registry[Initialisation] = Registry("initialisation", "evergraft.initialisation", __name__)
