"""The native CPU products: kernels in C++ (native/), one library for each instruction set.

Time and memory fall with density, and nothing dense is built. The kernels take fp32, and bf16 that is summed in fp32,
and blocks of any shape.
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from torch import Tensor

from evergraft.errors import EvergraftError
from evergraft.kernels.native import DTYPES, MALFORMED, call, check_tier, default_tier, reads
from evergraft.sparse.topology import INDICES, BlockTopology


class _Topology(ctypes.Structure):
    """The structure `Topology` of native/topology.hpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("block_rows", "block_columns", "height", "width", "active")),
        *((name, ctypes.c_void_p) for name in INDICES),
    )

    def __init__(self, topology: BlockTopology) -> None:
        self._indices = [tensor.contiguous() for tensor in topology.tensors()]  # they must outlive the call
        super().__init__(
            topology.row_offsets.shape[0] - 1,
            topology.transposed_offsets.shape[0] - 1,
            *topology.block,
            topology.active,
            *(tensor.data_ptr() for tensor in self._indices),
        )


class Weights(NamedTuple):
    """The weights of a sparse layer: values [active, R, C] at the active blocks of a topology, and a bias [out]."""

    values: Tensor
    topology: BlockTopology
    bias: Tensor | None


class CpuBackend:
    """The native products on one tier, which is an instruction set that the kernels are compiled for.

    Args:
        tier: an instruction set of `TIERS`; by default the one that the environment variable EVERGRAFT_CPU_TIER names,
            else the best that the processor has and that was built.

    Raises:
        EvergraftError: the tier is not among `runnable_tiers()`. The variable's tier is checked when it is first used.
    """

    name = "cpu"

    def __init__(self, tier: str | None = None) -> None:
        self._tier = None if tier is None else check_tier(tier)

    def tier(self) -> str | None:
        """The instruction set in use; None where no library was built."""
        return self._tier or default_tier()

    def supports(self, x: Tensor, values: Tensor) -> bool:
        """Whether x and `values` are plain, on the CPU and of one dtype, fp32 or bf16, and the libraries were built."""
        if values.dtype != x.dtype or not reads(x, values):
            return False
        if self.tier() is None:
            _warn_of_missing_libraries()
            return False
        return True

    def forward(self, x: Tensor, values: Tensor, topology: BlockTopology, bias: Tensor | None) -> Tensor:
        """Compute x W^T + bias: x [tokens, in] -> [tokens, out]."""
        y = x.new_empty(x.shape[0], topology.out_features)
        self._call("forward", (topology,), _rows(x), values.contiguous(), bias, y, x)
        return y

    def input_gradient(self, grad: Tensor, values: Tensor, topology: BlockTopology) -> Tensor:
        """Compute grad W: grad [tokens, out] -> [tokens, in]."""
        gradient = grad.new_empty(grad.shape[0], topology.in_features)
        self._call("input_gradient", (topology,), _rows(grad), values.contiguous(), gradient, grad)
        return gradient

    def weight_gradient(self, grad: Tensor, x: Tensor, topology: BlockTopology) -> Tensor:
        """Compute the active blocks of grad^T x: grad [tokens, out], x [tokens, in] -> [active, R, C]."""
        gradient = grad.new_empty(topology.active, *topology.block)
        self._call("weight_gradient", (topology,), _rows(grad), _rows(x), gradient, grad)
        return gradient

    def feed_forward(self, x: Tensor, up: Weights, down: Weights, keeps: bool) -> tuple[Tensor, Tensor | None]:
        """Compute y = down(gelu(h)) with h = up(x).

        Args:
            x: [tokens, in].
            up, down: the weights of two layers, in the dtype of x. The second takes what the first one gives.
            keeps: whether h is wanted.

        Returns:
            y [tokens, out], and h [tokens, hidden] or None.
        """
        y = x.new_empty(x.shape[0], down.topology.out_features)
        hidden = x.new_empty(x.shape[0], up.topology.out_features) if keeps else None
        parameters = (_contiguous(tensor) for tensor in (up.values, up.bias, down.values, down.bias))
        self._call("feed_forward", (up.topology, down.topology), _rows(x), *parameters, hidden, y, x)
        return y, hidden

    def feed_forward_gradients(
        self, grad: Tensor, x: Tensor, hidden: Tensor, up: Weights, down: Weights, needed: Sequence[bool]
    ) -> tuple[Tensor | None, ...]:
        """Compute the gradients of `feed_forward` from the gradient of y.

        Args:
            grad: [tokens, out], the gradient of y.
            x, up, down: as there; biases are not looked at.
            hidden: h [tokens, hidden].
            needed: whether each of the gradients is needed.

        Returns:
            The gradients of x, the values of `up`, the bias of `up` and the values of `down`; None for those that are
            not needed.
        """
        shapes = x.shape, up.values.shape, hidden.shape[1:], down.values.shape
        gradients = [x.new_empty(shape) if needs else None for shape, needs in zip(shapes, needed, strict=True)]
        values = up.values.contiguous(), down.values.contiguous()
        topologies = up.topology, down.topology
        self._call("feed_forward_backward", topologies, _rows(grad), _rows(x), hidden, *values, *gradients, x)
        return tuple(gradients)

    def _call(
        self,
        product: str,
        topologies: tuple[BlockTopology, ...],
        *arguments: tuple[Tensor, int] | Tensor | None,
    ) -> None:
        """Call a product; the last argument gives the number of tokens and the dtype."""
        *operands, activation = arguments
        assert isinstance(activation, Tensor)
        flat: list[Tensor | int | None] = []
        for operand in operands:
            flat += operand if isinstance(operand, tuple) else (operand,)
        described, dtype = map(_Topology, topologies), ctypes.c_int(DTYPES[activation.dtype])
        if call(product, *described, *flat, activation.shape[0], dtype, tier=self._tier) == MALFORMED:
            raise EvergraftError(
                "the topology's indices contradict each other; make it with BlockTopology's constructors"
            )


@cache
def _warn_of_missing_libraries() -> None:
    warnings.warn(
        "evergraft was installed without its native CPU products (no C++ compiler was found then), so sparse layers "
        "run on the slow reference products; install GCC or Clang and reinstall evergraft",
        stacklevel=2,
    )


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _rows(x: Tensor) -> tuple[Tensor, int]:
    """The matrix, copied unless its features lie side by side, and the distance between its tokens in numbers."""
    if x.stride(1) != 1 or x.stride(0) < x.shape[1]:
        x = x.contiguous()
    return x, x.stride(0)


BACKEND = CpuBackend()
