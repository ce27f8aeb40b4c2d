"""`SparseLinear`: a linear layer of which only the active blocks exist."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evergraft.errors import EvergraftError
from evergraft.sparse.config import INITIAL_STD
from evergraft.sparse.initialisation import INITIALISATIONS
from evergraft.sparse.linear import linear
from evergraft.sparse.products import check_backend
from evergraft.sparse.products.dense import gather, scatter
from evergraft.sparse.topology import INDICES, BlockTopology


class SparseLinear(nn.Module):
    """y = x W^T + bias with a block-sparse W [out_features, in_features].

    Parameters are `values` [active, R, C] and `bias` [out_features]; the topology lives in four persistent int32
    buffers. All keep their shapes as long as the number of blocks does, so that optimisers, clipping, DDP and
    `torch.compile` see an ordinary layer.

    Attributes:
        transposed: whether the dense layer that it stands for holds its weight as [in, out] (transformers' Conv1D).

    Args:
        topology: which blocks exist.
        bias: whether to add a bias, zero at first.
        backend: `auto`, or the name of a registered backend of products.
        device, dtype: those of `values` and `bias`.

    Example:
        >>> layer = SparseLinear(BlockTopology.random(64, 32, (4, 4), 0.25, np.random.default_rng(0)))
        >>> layer(torch.randn(8, 32)).shape
        torch.Size([8, 64])
    """

    values: nn.Parameter
    bias: nn.Parameter | None
    row_offsets: Tensor
    columns: Tensor
    transposed_offsets: Tensor
    transposed_order: Tensor
    transposed = False

    def __init__(
        self,
        topology: BlockTopology,
        bias: bool = True,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.block = topology.block
        self.in_features = topology.in_features
        self.out_features = topology.out_features
        self.backend = check_backend(backend)
        self.values = nn.Parameter(torch.empty(topology.active, *topology.block, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(self.out_features, device=device, dtype=dtype)) if bias else None
        for name, tensor in zip(INDICES, topology.clone().tensors(), strict=True):
            self.register_buffer(name, tensor.to(device))
        self.reset_parameters()

    @classmethod
    def random(
        cls,
        in_features: int,
        out_features: int,
        density: float = 0.1,
        block: tuple[int, int] = (16, 16),
        bias: bool = True,
        seed: int = 0,
        backend: str = "auto",
    ) -> SparseLinear:
        """A layer whose round(density * blocks) active blocks are drawn uniformly at random from `seed`.

        Args:
            in_features: features of the input, a multiple of C.
            out_features: features of the output, a multiple of R.
            density: share of the blocks that exist, in (0, 1].
            block: (R, C), rows of the output and columns of the input.
            bias: whether to add a bias, zero at first.
            seed: the seed of the topology; the values are drawn from torch's default generator.
            backend: `auto`, or the name of a registered backend of products.

        Raises:
            EvergraftError: a density outside (0, 1], a block that does not divide, an unknown backend.
        """
        topology = BlockTopology.random(out_features, in_features, block, density, np.random.default_rng(seed))
        return cls(topology, bias, backend)

    def reset_parameters(
        self, std: float = INITIAL_STD, generator: torch.Generator | None = None, initialisation: str = "normal"
    ) -> None:
        """Draw the values anew, and zero the bias.

        Args:
            std: standard deviation of the values.
            generator: where the randomness comes from; None is torch's default one.
            initialisation: a name of `evergraft.sparse.initialisation.INITIALISATIONS`.

        Raises:
            EvergraftError: no initialisation has that name.
        """
        INITIALISATIONS.get(initialisation)(self.values.detach(), self.topology, std, generator)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @property
    def topology(self) -> BlockTopology:
        """A view of the layer's topology, whose slots are in the order of `values`.

        It holds until the next update; `.clone()` it to keep it.
        """
        return BlockTopology(self.block, self.row_offsets, self.columns, self.transposed_offsets, self.transposed_order)

    @torch.no_grad()
    def set_topology(self, topology: BlockTopology) -> None:
        """Take over another topology of as many blocks as `values` holds; the caller has moved `values` along before.

        As long as their number is what it was, the index buffers are rewritten in place; otherwise they are replaced.

        Raises:
            EvergraftError: another size or block than the layer's, or another number of blocks than `values` holds.
        """
        size = (topology.out_features, topology.in_features)
        if (topology.block, topology.active, size) != (
            self.block, self.values.shape[0], (self.out_features, self.in_features)
        ):  # fmt: skip
            raise EvergraftError(
                f"the layer holds {self.values.shape[0]} blocks of {self.block[0]}x{self.block[1]} in "
                f"[{self.out_features}, {self.in_features}], and a new topology must too; got {topology.active} of "
                f"{topology.block[0]}x{topology.block[1]} in [{topology.out_features}, {topology.in_features}]"
            )
        for name, new in zip(INDICES, topology.tensors(), strict=True):
            mine = getattr(self, name)
            if mine.shape == new.shape:
                mine.copy_(new)
            else:
                setattr(self, name, new.to(mine.device))

    def forward(self, x: Tensor) -> Tensor:
        """Compute x W^T + bias for x [..., in_features]; the result is [..., out_features]."""
        return linear(x, self.values, self.topology, self.bias, self.backend)

    @property
    def weight(self) -> Tensor:
        """The dense matrix, shaped as the dense layer's, scattered anew at every call: slow, and not for training.

        It serves modules that look at their layers' weights themselves: T5 reads the dtype, and when it evaluates,
        torch's TransformerEncoder multiplies by the matrix.
        """
        weight = scatter(self.values, self.topology)
        return weight.t() if self.transposed else weight

    def to_dense(self) -> nn.Linear:
        """The plain `nn.Linear` that computes the same function."""
        dense = nn.Linear(
            self.in_features, self.out_features, self.bias is not None, self.values.device, self.values.dtype
        )
        with torch.no_grad():
            dense.weight.copy_(scatter(self.values, self.topology))
            if self.bias is not None:
                dense.bias.copy_(self.bias)
                dense.bias.requires_grad_(self.bias.requires_grad)
        dense.weight.requires_grad_(self.values.requires_grad)
        return dense

    @torch.no_grad()
    def copy_from(self, dense: nn.Linear) -> None:
        """Take the active blocks and the bias of a dense layer of the same shape."""
        self.values.copy_(gather(dense.weight, self.topology))
        if self.bias is not None and dense.bias is not None:
            self.bias.copy_(dense.bias)

    def extra_repr(self) -> str:
        """What `print(layer)` shows."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
            f"block={self.block[0]}x{self.block[1]}, density={self.topology.density:.4g}, backend={self.backend}"
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Refuse a topology that no constructor would have made, or of other shapes, before any of it is taken over."""
        incoming = [state_dict.get(prefix + name) for name in INDICES]
        if all(isinstance(tensor, Tensor) for tensor in incoming):
            values = state_dict.get(prefix + "values", self.values)
            mine = [tensor.shape for tensor in (self.values, *self.topology.tensors())]
            if [tensor.shape for tensor in (values, *incoming)] != mine:
                errors: list[str] = args[-1]
                errors.append(
                    f"{prefix.rstrip('.') or 'the layer'} has {list(self.values.shape)} values, got "
                    f"{list(values.shape)}: make the model with the sizes, density and block that were saved"
                )
                return
            BlockTopology(self.block, *incoming).check(prefix.rstrip(".") or "the layer")  # type: ignore[arg-type]
        super()._load_from_state_dict(state_dict, prefix, *args)
