"""`TopologyUpdater`: prune, grow, and carry values and optimiser state, in any training loop."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from evergraft.errors import EvergraftError, naming
from evergraft.evolution.config import EvolutionConfig
from evergraft.evolution.context import UpdateContext
from evergraft.evolution.exploration import Exploration
from evergraft.evolution.gradients import GradientRecorder
from evergraft.evolution.growth import GROWTH_RULES, changes_count, uses_gradients
from evergraft.evolution.optimizer_state import carry, check_carriable
from evergraft.evolution.pruning import PRUNING_RULES
from evergraft.evolution.schedule import UpdateSchedule
from evergraft.sparse.conversion import random_generator, sparse_layers
from evergraft.sparse.layer import SparseLinear


@dataclass(frozen=True)
class LayerUpdate:
    """What one update did to one layer.

    Attributes:
        layer: the layer's name.
        pruned, grown: blocks that went and blocks that came.
        explored: share of the layer's block positions that were ever active, this update included.
        previous_grown: blocks that the update before this one had grown.
        removed_new: how many of those this update pruned.
        idle: blocks that were exactly zero when the update fell due: grown ones whose gradient has always been zero.
    """

    layer: str
    pruned: int
    grown: int
    explored: float
    previous_grown: int
    removed_new: int
    idle: int

    @property
    def removed_new_ratio(self) -> float | None:
        """Share of the blocks grown by the update before that this one pruned; None after no growth."""
        return self.removed_new / self.previous_grown if self.previous_grown else None


class TopologyUpdater:
    """Evolves the sparse layers of a model (docs/method.md, section 2).

    Call `step()` once after every `optimizer.step()`. What an update does is a pure function of the weights (and, for
    growth rules that look at them, of the gradients), the seed, the update's number and the layer's name; so ranks
    agree without talking, and a restart repeats it. A layer whose values are frozen (`requires_grad` is off) keeps its
    topology.

    An update changes which weight a slot of `values` holds. So averages over time (EMA, SWA, of checkpoints) are to
    be taken of dense weights, `SparseLinear.weight`, not of `values`.

    Args:
        model: holds at least one SparseLinear.
        optimizer: the optimiser that trains the model, made after `sparsify`; its per-element state is carried along.
        total_steps: T, over which the schedule runs; None if `step` will be given the progress.
        config: how the topologies evolve.
        settings: the fields of `EvolutionConfig` by keyword, if no record is given: `updates`, `prune_ratio`,
            `prune_decay`, `prune_by`, `grow_by`, `update_until`, `seed`.

    Raises:
        EvergraftError: no sparse layer, one that is trained but not by this optimiser, a setting out of range, less
            than two steps for each update, or a Group Lasso, which `TopologyCallback` applies and this does not.

    Example:
        >>> updater = evergraft.TopologyUpdater(model, optimizer, total_steps=1000, updates=80)
        >>> for batch in batches:
        ...     model(**batch).loss.backward()
        ...     optimizer.step()
        ...     updater.step()
        ...     optimizer.zero_grad()
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        total_steps: int | None = None,
        config: EvolutionConfig | None = None,
        **settings: Any,
    ) -> None:
        self.config = EvolutionConfig.of(config, **settings)
        self.layers: dict[str, SparseLinear] = sparse_layers(model)
        self.optimizer = optimizer
        self.total_steps = total_steps
        self.schedule = UpdateSchedule(self.config)
        self.seed = self.config.seed or 0
        self.steps_done = 0
        self.updates_done = 0
        self.exploration = {name: Exploration(layer.topology) for name, layer in self.layers.items()}
        self._prune, self._grow = PRUNING_RULES.get(self.config.prune_by), GROWTH_RULES.get(self.config.grow_by)
        self._recorder = GradientRecorder(self.layers.values()) if uses_gradients(self._grow) else None
        if self.config.group_lasso:
            raise EvergraftError(
                "TopologyUpdater applies no Group Lasso; use TopologyCallback, or leave `group_lasso` at 0 and call "
                "evergraft.evolution.group_lasso.apply_group_lasso after every optimiser step"
            )
        if total_steps is not None:
            self.config.check_fits(total_steps)
        self._trained()  # so that an optimiser which does not train them is refused before training

    def step(self, progress: float | None = None) -> list[LayerUpdate]:
        """Count one optimiser step, and update the topology if an update has fallen due.

        Args:
            progress: how much of training is done, in [0, 1]; by default steps over `total_steps`.

        Returns:
            One entry for each layer if there was an update, else nothing.
        """
        self.steps_done += 1
        if progress is None:
            if self.total_steps is None:
                raise EvergraftError("give TopologyUpdater total_steps, or give step() the progress of training")
            progress = self.steps_done / self.total_steps
        if self.schedule.due(progress) <= self.updates_done:
            return []
        if self._recorder and not self._recorder.is_on:
            self._recorder.start()
            return []
        return self.update(self.schedule.ratio(min(progress, 1.0)))

    @torch.no_grad()
    def update(self, ratio: float) -> list[LayerUpdate]:
        """Exchange the share `ratio`, in [0, 1], of the active blocks of every layer, now.

        At most as many blocks are exchanged as there are inactive positions.

        Raises:
            EvergraftError: a ratio outside [0, 1], the optimiser's state cannot be carried, or a rule cannot choose or
                chooses what it may not; no layer has been changed then.
        """
        if not 0 <= ratio <= 1:
            raise EvergraftError(f"the share of blocks to exchange must lie in [0, 1]; got {ratio}")
        choices = {name: self._choose(name, layer, ratio) for name, layer in self._trained().items()}
        report = [self._exchange(name, *choice) for name, choice in choices.items()]
        self.updates_done += 1
        if self._recorder:
            self._recorder.stop()
        return report

    def _trained(self) -> dict[str, SparseLinear]:
        """The layers that are not frozen, if all of them can be updated."""
        trained = {name: layer for name, layer in self.layers.items() if layer.values.requires_grad}
        for name, layer in trained.items():
            check_carriable(self.optimizer, name, layer.values)
        return trained

    def _choose(self, name: str, layer: SparseLinear, ratio: float) -> tuple[Tensor, Tensor]:
        """The slots to prune and the positions to grow, by the rules; nothing is changed yet."""
        topology = layer.topology
        rng = random_generator(self.seed, name, self.updates_done + 1)
        count = min(round(ratio * topology.active), topology.blocks - topology.active)
        context = UpdateContext(name, topology, layer.values, count, rng)
        with naming(f"{PRUNING_RULES.kind} {self.config.prune_by!r}, layer {name}"):
            slots = self._prune(context)
            topology.check_active(slots)
            _check_count(len(slots), count)
        context = replace(context, pruned=topology.positions[slots])
        if self._recorder:
            context = replace(context, gradient=partial(self._recorder.gradient, layer))
        with naming(f"{GROWTH_RULES.kind} {self.config.grow_by!r}, layer {name}"):
            grown = self._grow(context)
            topology.check_inactive(grown)
            if not changes_count(self._grow):
                _check_count(len(grown), count, "; a rule that changes the number of blocks says changes_count = True")
            elif len(grown) == 0 and len(slots) == topology.active:
                raise EvergraftError("all blocks were pruned and none grows; expected at least one to be left")
        return slots, grown

    def _exchange(self, name: str, slots: Tensor, grown: Tensor) -> LayerUpdate:
        layer = self.layers[name]
        topology = layer.topology  # a new view each time, whose positions are computed once
        pruned = topology.positions[slots]
        idle = int((layer.values.flatten(1) == 0).all(1).sum())
        replaced, sources = topology.replace(slots, grown)
        carry(self.optimizer, layer.values, sources)
        layer.set_topology(replaced)
        previous_grown, removed_new = self.exploration[name].record(pruned, grown)
        explored = self.exploration[name].explored
        return LayerUpdate(name, len(pruned), len(grown), explored, previous_grown, removed_new, idle)

    @property
    def explored(self) -> float:
        """Explored degrees of freedom over all layers: weights ever active over all weights."""
        weights = {name: layer.block[0] * layer.block[1] for name, layer in self.layers.items()}
        seen = sum(history.explored_blocks * weights[name] for name, history in self.exploration.items())
        return seen / sum(history.blocks * weights[name] for name, history in self.exploration.items())

    @property
    def removed_new_ratio(self) -> float | None:
        """Share of all blocks grown so far (but by the last update) that the next update pruned; None before any."""
        grown = sum(history.grown for history in self.exploration.values())
        return sum(history.removed_new for history in self.exploration.values()) / grown if grown else None

    def state_dict(self) -> dict[str, Tensor]:
        """Everything a restart needs, as tensors that safetensors can hold."""
        state = {
            "steps_done": torch.tensor(self.steps_done),
            "updates_done": torch.tensor(self.updates_done),
            "topologies": self._fingerprint(),
        }
        for name, history in self.exploration.items():
            state[f"{name}.seen"] = torch.from_numpy(history.seen.copy())
            state[f"{name}.newest"] = torch.from_numpy(history.newest.copy())
            state[f"{name}.churn"] = torch.tensor([history.grown, history.removed_new])
        if self._recorder:
            state["records_gradients"] = torch.tensor(self._recorder.is_on)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`; the model is loaded first.

        Raises:
            EvergraftError: the state belongs to other layers, other sizes or other topologies.
        """
        expected = self.state_dict()
        if state.keys() != expected.keys() or any(
            state[key].shape != expected[key].shape for key in expected if not key.endswith(".newest")
        ):
            raise EvergraftError(
                "the updater's state belongs to other layers than the model's, or to an earlier evergraft; expected "
                "the same model and version"
            )
        if not torch.equal(state["topologies"], expected["topologies"]):
            raise EvergraftError(
                "the updater's state was saved with other topologies than the model has; load the model's weights from "
                "the same checkpoint first"
            )
        self.steps_done, self.updates_done = int(state["steps_done"]), int(state["updates_done"])
        for name, history in self.exploration.items():
            history.seen = state[f"{name}.seen"].numpy().copy()
            history.newest = state[f"{name}.newest"].numpy().copy()
            history.grown, history.removed_new = state[f"{name}.churn"].tolist()
        if self._recorder and bool(state["records_gradients"]):
            self._recorder.start()

    def _fingerprint(self) -> Tensor:
        """Uint8 [32]: a hash of which blocks are active."""
        digest = hashlib.sha256()
        for layer in self.layers.values():
            digest.update(layer.row_offsets.cpu().numpy().tobytes())
            digest.update(layer.columns.cpu().numpy().tobytes())
        return torch.tensor(list(digest.digest()), dtype=torch.uint8)


def _check_count(chosen: int, expected: int, advice: str = "") -> None:
    if chosen != expected:
        raise EvergraftError(f"{chosen} blocks were chosen, expected {expected}{advice}")
