"""Which blocks of a weight matrix exist: a block-sparse index in compressed sparse rows, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from evergraft.errors import EvergraftError, naming
from evergraft.sparse.allocation import Count, total
from evergraft.sparse.grid import active_count, block_grid
from evergraft.sparse.placement import PLACEMENTS

INDICES = ("row_offsets", "columns", "transposed_offsets", "transposed_order")  # in the order of `tensors()`


@dataclass(frozen=True, eq=False)
class BlockTopology:
    """The active R x C blocks of an [out_features, in_features] matrix, immutable.

    A block's *position* is `row * block_columns + column`, its *slot* is its rank among the active blocks in
    ascending position; slot k holds `values[k]` of a layer. The constructors below (`random`, `from_positions`,
    `from_mask`) validate; calling the class itself trusts its arguments, for callers that hold validated tensors.

    Attributes:
        block: (R, C): R rows of `out_features`, C columns of `in_features`; (1, 1) is unstructured sparsity.
        row_offsets: int32 [block_rows + 1]; the slots of block row i are row_offsets[i] ... row_offsets[i + 1] - 1.
        columns: int32 [active]; the block column of each slot, ascending within a block row.
        transposed_offsets: int32 [block_columns + 1]; the same offsets for the transposed matrix.
        transposed_order: int32 [active]; the slots ordered by block column, then by block row.

    Example:
        >>> topology = BlockTopology.from_positions(8, 16, (4, 4), torch.tensor([0, 1, 6]))  # two block rows of four
        >>> topology.rows.tolist(), topology.columns.tolist()
        ([0, 0, 1], [0, 1, 2])
    """

    block: tuple[int, int]
    row_offsets: Tensor
    columns: Tensor
    transposed_offsets: Tensor
    transposed_order: Tensor

    @classmethod
    def from_positions(
        cls, out_features: int, in_features: int, block: tuple[int, int], positions: Tensor
    ) -> BlockTopology:
        """Build from the positions of the active blocks.

        Args:
            out_features, in_features: rows and columns of the matrix.
            block: (R, C), which must divide the matrix.
            positions: integer [active], in any order, each in [0, blocks), no position twice.

        Raises:
            EvergraftError: a size below one, a block that does not divide the matrix, no active block, more blocks
                than int32 indices can tell apart, or positions that repeat or lie outside the matrix.
        """
        rows, columns = block_grid(out_features, in_features, block)
        positions = positions.to(torch.int64).sort().values
        if positions.numel() == 0:
            raise EvergraftError("a topology needs at least one active block; got no positions")
        if positions[0] < 0 or positions[-1] >= rows * columns:
            raise EvergraftError(
                f"block positions must lie in [0, {rows * columns}) for {rows} x {columns} blocks; "
                f"got {int(positions[0])} to {int(positions[-1])}"
            )
        if (positions[1:] == positions[:-1]).any():
            raise EvergraftError("block positions must differ from each other; got at least one twice")
        row, column = positions // columns, positions % columns
        return cls(
            block=(block[0], block[1]),
            row_offsets=_offsets(row, rows),
            columns=column.to(torch.int32),
            transposed_offsets=_offsets(column, columns),
            transposed_order=torch.argsort(column, stable=True).to(torch.int32),
        )

    @classmethod
    def from_mask(cls, mask: Tensor, block: tuple[int, int]) -> BlockTopology:
        """Build from a boolean mask [out_features, in_features]; a block (R, C) of it is all True or all False.

        Raises:
            EvergraftError: as `from_positions`, or a block of which only a part is True.
        """
        out_features, in_features = mask.shape
        rows, columns = block_grid(out_features, in_features, block)
        blocks = mask.reshape(rows, block[0], columns, block[1]).permute(0, 2, 1, 3).flatten(2)
        active = blocks.any(2)
        if (active != blocks.all(2)).any():
            raise EvergraftError(f"a mask must be constant within each {_shape(block)} block; got blocks partly active")
        return cls.from_positions(out_features, in_features, block, active.flatten().nonzero().flatten())

    @classmethod
    def random(
        cls, out_features: int, in_features: int, block: tuple[int, int], density: float, rng: np.random.Generator
    ) -> BlockTopology:
        """Draw round(density * blocks) blocks, at least one, uniformly at random (docs/method.md, section 2).

        Args:
            out_features, in_features: rows and columns of the matrix.
            block: (R, C), which must divide the matrix.
            density: share of the blocks to draw, in (0, 1].
            rng: the generator that they are drawn from.

        Raises:
            EvergraftError: as `from_positions`, or a density outside (0, 1].

        Example:
            >>> BlockTopology.random(3072, 768, (16, 16), 0.1, np.random.default_rng(0)).active
            922
        """
        rows, columns = block_grid(out_features, in_features, block)
        return cls.random_count(out_features, in_features, block, active_count(rows * columns, density), rng)

    @classmethod
    def random_count(
        cls,
        out_features: int,
        in_features: int,
        block: tuple[int, int],
        count: Count,
        rng: np.random.Generator,
        placement: str = "random",
    ) -> BlockTopology:
        """Place a given count of blocks, by default uniformly at random.

        Args:
            out_features, in_features: rows and columns of the matrix.
            block: (R, C), which must divide the matrix.
            count: how many blocks the whole matrix has, or how many each block row has, in order.
            rng: the generator that they are drawn from.
            placement: a name of `evergraft.sparse.placement.PLACEMENTS`.

        Raises:
            EvergraftError: as `from_positions`, a sequence that does not hold one count for each block row, or a
                placement that is unknown or places another number of blocks.
        """
        rows, columns = block_grid(out_features, in_features, block)
        if not isinstance(count, int) and len(count) != rows:
            raise EvergraftError(f"expected a count for each of {rows} block rows; got {len(count)} counts")
        with naming(f"{PLACEMENTS.kind} {placement!r}"):
            positions = np.asarray(PLACEMENTS.get(placement)(rows, columns, count, rng))
            if len(positions) != total(count):
                raise EvergraftError(f"{len(positions)} blocks were placed, expected {total(count)}")
        return cls.from_positions(out_features, in_features, block, torch.from_numpy(positions))

    @property
    def out_features(self) -> int:
        """Rows of the matrix."""
        return (self.row_offsets.shape[0] - 1) * self.block[0]

    @property
    def in_features(self) -> int:
        """Columns of the matrix."""
        return (self.transposed_offsets.shape[0] - 1) * self.block[1]

    @property
    def active(self) -> int:
        """Number of active blocks."""
        return self.columns.shape[0]

    @property
    def blocks(self) -> int:
        """Number of block positions, active or not."""
        return (self.row_offsets.shape[0] - 1) * (self.transposed_offsets.shape[0] - 1)

    @property
    def density(self) -> float:
        """The exact share of active blocks."""
        return self.active / self.blocks

    @cached_property
    def rows(self) -> Tensor:
        """int64 [active]: the block row of each slot."""
        return _owners(self.row_offsets, self.active)

    @cached_property
    def positions(self) -> Tensor:
        """int64 [active]: the position of each slot, ascending."""
        return self.rows * (self.transposed_offsets.shape[0] - 1) + self.columns

    @property
    def empty_rows(self) -> int:
        """Rows of the matrix that hold no block: outputs without an input, which are the bias alone."""
        return int((self.row_offsets.diff() == 0).sum()) * self.block[0]

    @property
    def unread_columns(self) -> int:
        """Columns of the matrix that hold no block: inputs that the layer does not read."""
        return int((self.transposed_offsets.diff() == 0).sum()) * self.block[1]

    def mask(self) -> Tensor:
        """The dense boolean mask [out_features, in_features]; for tests and pictures, never used in training."""
        active = torch.zeros(self.blocks, dtype=torch.bool, device=self.columns.device)
        active[self.positions] = True
        grid_rows = self.row_offsets.shape[0] - 1
        return active.view(grid_rows, -1).repeat_interleave(self.block[0], 0).repeat_interleave(self.block[1], 1)

    def replace(self, pruned: Tensor, grown: Tensor) -> tuple[BlockTopology, Tensor]:
        """Exchange blocks: those in the slots `pruned` go, those at the positions `grown` come.

        Args:
            pruned: int64 [n], slots of this topology, no slot twice.
            grown: int64 [m], positions inactive in this topology, no position twice.

        Returns:
            The new topology, and `sources`, int64 [active]: the old slot that each new slot continues, -1 where the
            block is new.

        Raises:
            EvergraftError: as `check_active` and `check_inactive`, or no block is left.
        """
        self.check_active(pruned)
        self.check_inactive(grown)
        kept = torch.ones(self.active, dtype=torch.bool, device=pruned.device)
        kept[pruned] = False
        survivors = kept.nonzero().flatten()
        positions = torch.cat([self.positions[survivors], grown])
        slots = torch.cat([survivors, torch.full_like(grown, -1)])
        topology = self.from_positions(self.out_features, self.in_features, self.block, positions)
        return topology, slots[positions.argsort()]

    def check_active(self, slots: Tensor) -> None:
        """Check that a tensor names active blocks by their slots, each once.

        Raises:
            EvergraftError: it is not int64 [n] on the device of the topology, or a slot repeats or does not exist.
        """
        self._check_distinct("slots", slots, self.active)

    def check_inactive(self, positions: Tensor) -> None:
        """Check that a tensor names inactive blocks by their positions, each once.

        Raises:
            EvergraftError: it is not int64 [n] on the device of the topology, or a position repeats, does not exist,
                or is active.
        """
        self._check_distinct("positions", positions, self.blocks)
        nearest = torch.searchsorted(self.positions, positions).clamp_(max=self.active - 1)
        if (self.positions[nearest] == positions).any():
            raise EvergraftError("grown positions must be inactive before the update; got at least one active one")

    def _check_distinct(self, what: str, numbers: Tensor, end: int) -> None:
        """Check that a tensor is int64 [n] on this device, and that its numbers differ and lie in [0, end)."""
        device = self.columns.device
        if not isinstance(numbers, Tensor) or (numbers.dtype, numbers.dim()) != (torch.int64, 1):
            got = f"{numbers.dtype} {list(numbers.shape)}" if isinstance(numbers, Tensor) else type(numbers).__name__
            raise EvergraftError(f"{what} must be a tensor int64 [n] on {device}; got {got}")
        if numbers.device != device:
            raise EvergraftError(f"{what} must lie on {device}; got them on {numbers.device}")
        ordered = numbers.sort().values
        if len(ordered) and (ordered[0] < 0 or ordered[-1] >= end):
            raise EvergraftError(f"{what} must lie in [0, {end}); got {int(ordered[0])} to {int(ordered[-1])}")
        if (ordered[1:] == ordered[:-1]).any():
            raise EvergraftError(f"{what} must differ from each other; got at least one twice")

    def clone(self) -> BlockTopology:
        """A copy that shares no memory with this one."""
        return BlockTopology(self.block, *(tensor.clone() for tensor in self.tensors()))

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four index tensors: row_offsets, columns, transposed_offsets, transposed_order."""
        return self.row_offsets, self.columns, self.transposed_offsets, self.transposed_order

    def check(self, layer: str) -> None:
        """Validate a topology that was read from a file.

        Args:
            layer: the layer's name, for the sentence of an error.

        Raises:
            EvergraftError: as `validate`.
        """
        try:
            self.validate()
        except (EvergraftError, RuntimeError, IndexError) as error:
            raise EvergraftError(f"the topology to load into {layer}: {error}") from None

    def validate(self) -> None:
        """Check every index against every other: for tensors that come from outside, such as a checkpoint.

        Raises:
            EvergraftError: the tensors are such as no constructor would have made.
        """
        if any(tensor.dtype != torch.int32 or tensor.dim() != 1 for tensor in self.tensors()):
            raise EvergraftError("topology indices must be one-dimensional int32 tensors")
        if self.active < 1 or self.transposed_order.shape != self.columns.shape:
            raise EvergraftError("topology indices must hold at least one block, the same count in both orders")
        for offsets in (self.row_offsets, self.transposed_offsets):
            if offsets.shape[0] < 2 or offsets[0] != 0 or offsets[-1] != self.active or (offsets.diff() < 0).any():
                raise EvergraftError(f"topology offsets must ascend from 0 to {self.active}, the number of blocks")
        if self.columns.min() < 0 or self.columns.max() >= self.transposed_offsets.shape[0] - 1:
            raise EvergraftError("topology columns must lie within the matrix")
        rebuilt = self.from_positions(self.out_features, self.in_features, self.block, self.positions)
        if any(not torch.equal(mine, its) for mine, its in zip(self.tensors(), rebuilt.tensors(), strict=True)):
            raise EvergraftError("topology indices contradict each other (columns must ascend within a row)")


def _offsets(owners: Tensor, count: int) -> Tensor:
    """int32 [count + 1]: where each owner's run starts once the owners are sorted."""
    sizes = torch.bincount(owners, minlength=count)
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]).to(torch.int32)


def _owners(offsets: Tensor, total: int) -> Tensor:
    """int64 [total]: the inverse of `_offsets`."""
    owners = torch.arange(offsets.shape[0] - 1, device=offsets.device)
    return owners.repeat_interleave(offsets.diff(), output_size=total)


def _shape(block: tuple[int, int]) -> str:
    return f"{block[0]}x{block[1]}"
