"""`TopologyUpdater`: prune, grow, and carry values and optimiser state, in any training loop."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from evergraft.errors import EvergraftError
from evergraft.evolution.exploration import Exploration
from evergraft.evolution.grow import grow
from evergraft.evolution.optimizer_state import carry, check_carriable
from evergraft.evolution.prune import PruneBy, check_prune_by, prune
from evergraft.evolution.schedule import Decay, UpdateSchedule
from evergraft.sparse.conversion import random_generator, sparse_layers
from evergraft.sparse.layer import SparseLinear


@dataclass(frozen=True)
class LayerUpdate:
    """What one update did to one tensor.

    Attributes:
        layer: its name.
        pruned: blocks exchanged.
        explored: share of its blocks ever active, after the update.
        previous_grown, removed_new: blocks the update before had grown, and how many of them this one pruned.
    """

    layer: str
    pruned: int
    explored: float
    previous_grown: int
    removed_new: int

    @property
    def removed_new_ratio(self) -> float | None:
        """Share of the blocks grown by the update before that this one pruned; None after no growth."""
        return self.removed_new / self.previous_grown if self.previous_grown else None


class TopologyUpdater:
    """Evolves the sparse layers of a model (METHOD: arXiv 2108.06277, section 2).

    Call `step()` once after every `optimizer.step()`. What an update does is a pure function of the weights, `seed`,
    the update's number and the layer's name; so ranks agree without talking, and a restart repeats it. A layer whose
    values are frozen (`requires_grad` is off) keeps its topology.

    An update changes which weight a slot of `values` holds. So averages over time (EMA, SWA, of checkpoints) are to
    be taken of dense weights, `SparseLinear.weight`, not of `values`.

    Args:
        model: holds at least one SparseLinear.
        optimizer: the one that trains it, made after `sparsify`; its per-element state is carried along.
        total_steps: T, over which the schedule runs; None if `step` will be given the progress.
        updates, prune_ratio, decay: see `UpdateSchedule`.
        prune_by: `l1`, `l2`, `linf` or `random`.
        seed: of growth (and of random pruning).

    Raises:
        EvergraftError: no sparse layer, one that is trained but not by this optimiser, a setting out of range, or less
            than two steps an update.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        total_steps: int | None = None,
        *,
        updates: int = 80,
        prune_ratio: float = 0.5,
        decay: Decay = "cosine",
        prune_by: PruneBy = "l1",
        seed: int = 0,
    ) -> None:
        self.layers: dict[str, SparseLinear] = sparse_layers(model)
        self.optimizer = optimizer
        self.total_steps = total_steps
        self.schedule = UpdateSchedule(updates, prune_ratio, decay)
        self.prune_by = check_prune_by(prune_by)
        self.seed = seed
        self.steps_done = 0
        self.updates_done = 0
        self.exploration = {name: Exploration(layer.topology) for name, layer in self.layers.items()}
        if total_steps is not None and updates > total_steps // 2:
            raise EvergraftError(
                f"{updates} updates in {total_steps} steps leave less than two steps to each; "
                f"expected at most {total_steps // 2}"
            )
        self._trained()  # so that an optimiser which does not train them is refused before training

    def step(self, progress: float | None = None) -> list[LayerUpdate]:
        """Count one optimiser step, and update the topology if an update has fallen due.

        Args:
            progress: how much of training is done, in [0, 1]; by default steps over `total_steps`.

        Returns:
            One entry a layer if there was an update, else nothing.
        """
        self.steps_done += 1
        if progress is None:
            if self.total_steps is None:
                raise EvergraftError("give TopologyUpdater total_steps, or give step() the progress of training")
            progress = self.steps_done / self.total_steps
        if self.schedule.due(progress) <= self.updates_done:
            return []
        return self.update(self.schedule.ratio(min(progress, 1.0)))

    @torch.no_grad()
    def update(self, ratio: float) -> list[LayerUpdate]:
        """Exchange the share `ratio` of the active blocks of every layer, now.

        At most as many blocks are exchanged as there are inactive positions.

        Raises:
            EvergraftError: the optimiser's state cannot be carried; nothing is changed then.
        """
        report = [self._update_layer(name, layer, ratio) for name, layer in self._trained().items()]
        self.updates_done += 1
        return report

    def _trained(self) -> dict[str, SparseLinear]:
        """The layers that are not frozen, if all of them can be updated."""
        trained = {name: layer for name, layer in self.layers.items() if layer.values.requires_grad}
        for name, layer in trained.items():
            check_carriable(self.optimizer, name, layer.values)
        return trained

    def _update_layer(self, name: str, layer: SparseLinear, ratio: float) -> LayerUpdate:
        topology = layer.topology
        rng = random_generator(self.seed, name, self.updates_done + 1)
        count = min(round(ratio * topology.active), topology.blocks - topology.active)
        slots = prune(layer.values, count, self.prune_by, rng)
        pruned, grown = topology.positions[slots], grow(topology, count, rng)
        replaced, sources = topology.replace(slots, grown)
        carry(self.optimizer, layer.values, sources)
        layer.set_topology(replaced)
        previous_grown, removed_new = self.exploration[name].record(pruned, grown)
        return LayerUpdate(name, count, self.exploration[name].explored, previous_grown, removed_new)

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
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`; the model is loaded first.

        Raises:
            EvergraftError: the state is of other layers, other sizes or other topologies.
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

    def _fingerprint(self) -> Tensor:
        """Uint8 [32]: a hash of which blocks are active."""
        digest = hashlib.sha256()
        for layer in self.layers.values():
            digest.update(layer.row_offsets.cpu().numpy().tobytes())
            digest.update(layer.columns.cpu().numpy().tobytes())
        return torch.tensor(list(digest.digest()), dtype=torch.uint8)
