"""How a topology evolves, as one record; nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from evergraft.errors import EvergraftError
from evergraft.evolution.growth import GROWTH_RULES
from evergraft.evolution.pruning import PRUNING_RULES
from evergraft.settings import MOST, SEEDS, Choices, Settings


class EvolutionConfig(Settings):
    """How the topologies of a model evolve.

    Defaults are the paper's (docs/method.md, section 2).

    Attributes:
        updates: how many topology updates; 0 is static sparsity.
        prune_ratio: share of the active blocks that the first update prunes, in [0, 1].
        prune_decay: how that share falls with progress: `cosine` or `linear` to zero, or `constant`.
        prune_by: which blocks an update prunes, a name of `evergraft.evolution.pruning.PRUNING_RULES`.
        grow_by: where as many grow, a name of `evergraft.evolution.growth.GROWTH_RULES`.
        update_until: share of training, in (0, 1], over which the updates are spread; the topology rests after it.
        group_lasso: strength of the decoupled Group Lasso, lambda in its formula; 0 is none.
        seed: the seed of growth and of random pruning; None is 0, or the seed of transformers' Trainer.

    Raises:
        SettingError: a value out of range, an unknown name or field.

    Example:
        >>> EvolutionConfig(updates=80, prune_ratio=0.5).to_dict()["prune_by"]
        'l1'
    """

    EARLIER_NAMES: ClassVar[dict[str, str]] = {"decay": "prune_decay"}

    updates: int = Field(80, ge=0, le=MOST, description="topology updates; 0 is static")
    prune_ratio: float = Field(0.5, ge=0, le=1, description="share of blocks the first update prunes")
    prune_decay: Literal["cosine", "linear", "constant"] = Field("cosine", description="how that share falls")
    prune_by: Annotated[str, AfterValidator(PRUNING_RULES.check), Choices(PRUNING_RULES.names)] = Field(
        "l1", description="what decides which blocks are pruned"
    )
    grow_by: Annotated[str, AfterValidator(GROWTH_RULES.check), Choices(GROWTH_RULES.names)] = Field(
        "random", description="what decides where blocks grow"
    )
    update_until: float = Field(1.0, gt=0, le=1, description="share of the run over which updates are spread")
    group_lasso: float = Field(0.0, ge=0, description="strength of decoupled Group Lasso")
    seed: int | None = Field(None, ge=0, lt=SEEDS, description="seed of growth and of random pruning")

    def most_updates(self, steps: int) -> int:
        """How many updates fit into a run of `steps` optimiser steps: two steps to each, within `update_until`."""
        return int(steps * self.update_until) // 2

    def check_fits(self, steps: int) -> None:
        """Check that all updates fit into a run of `steps` optimiser steps.

        Raises:
            EvergraftError: there is no step, or there are less than two to each update.
        """
        if steps < 1:
            raise EvergraftError(f"a run has at least one step; got {steps}")
        if self.updates > self.most_updates(steps):
            within = f" up to {self.update_until:g} of the run" if self.update_until < 1 else ""
            raise EvergraftError(
                f"{self.updates} updates in {steps} steps{within} leave less than two steps to each; give `updates` of "
                f"at most {self.most_updates(steps)}, or a longer run"
            )
