"""The native CPU products: kernels in C++ (native/), one library an instruction set, behind a plain C interface.

Time and memory fall with density; nothing dense is built. fp32 and bf16 (summed in fp32), any block shape.
"""

from __future__ import annotations

import ctypes
import os
import warnings
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

import evergraft
from evergraft.errors import EvergraftError
from evergraft.topology import BlockTopology

TIERS = ("portable", "avx2", "avx512", "avx512bf16")  # ascending; the order is that of native/tier.cpp
DTYPES = {torch.float32: 0, torch.bfloat16: 1}  # `Dtype` of native/products.cpp
OUT_OF_MEMORY, MALFORMED = 1, 2  # `Status` of native/products.cpp


class _Topology(ctypes.Structure):
    """`Topology` of native/products.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("block_rows", "block_columns", "height", "width", "active")),
        *((name, ctypes.c_void_p) for name in ("row_offsets", "columns", "transposed_offsets", "transposed_order")),
    )


class _Threads(ctypes.Structure):
    """`Threads` of native/products.cpp."""

    _fields_ = (("parallel", ctypes.c_void_p), ("count", ctypes.c_int))


class CpuBackend:
    """The native products of one tier.

    Args:
        tier: an instruction set of `TIERS`; by default the one that the environment variable EVERGRAFT_CPU_TIER names,
            else the best that the processor has and that was built.

    Raises:
        EvergraftError: the tier is not among `runnable_tiers()`; for the variable's, when it is first needed.
    """

    name = "cpu"

    def __init__(self, tier: str | None = None) -> None:
        self._tier = None if tier is None else _check_tier(tier)

    def tier(self) -> str | None:
        """The instruction set in use; None where no library was built."""
        if self._tier:
            return self._tier
        asked = os.environ.get("EVERGRAFT_CPU_TIER")
        return _check_tier(asked) if asked else next(reversed(runnable_tiers()), None)

    def supports(self, x: Tensor, values: Tensor) -> bool:
        """CPU tensors of one dtype, fp32 or bf16, if the libraries were built."""
        if x.device.type != "cpu" or x.dtype not in DTYPES or values.dtype != x.dtype:
            return False
        if self.tier() is None:
            _warn_of_missing_libraries()
        return self.tier() is not None

    def forward(self, x: Tensor, values: Tensor, topology: BlockTopology, bias: Tensor | None) -> Tensor:
        """X [tokens, in] -> [tokens, out] = x W^T + bias."""
        y = x.new_empty(x.shape[0], topology.out_features)
        self._call("forward", topology, _rows(x), values.contiguous(), bias, y, x)
        return y

    def input_gradient(self, grad: Tensor, values: Tensor, topology: BlockTopology) -> Tensor:
        """Grad [tokens, out] -> [tokens, in] = grad W."""
        gradient = grad.new_empty(grad.shape[0], topology.in_features)
        self._call("input_gradient", topology, _rows(grad), values.contiguous(), gradient, grad)
        return gradient

    def weight_gradient(self, grad: Tensor, x: Tensor, topology: BlockTopology) -> Tensor:
        """Grad [tokens, out], x [tokens, in] -> [active, R, C]: the active blocks of grad^T x."""
        gradient = grad.new_empty(topology.active, *topology.block)
        self._call("weight_gradient", topology, _rows(grad), _rows(x), gradient, grad)
        return gradient

    def _call(self, product: str, topology: BlockTopology, *arguments: tuple[Tensor, int] | Tensor | None) -> None:
        """Call a product; the last argument gives the number of tokens and the dtype."""
        *operands, activation = arguments
        assert isinstance(activation, Tensor)
        flat: list[object] = []
        for operand in operands:
            tensor, stride = operand if isinstance(operand, tuple) else (operand, None)
            flat.append(ctypes.c_void_p(None if tensor is None else tensor.data_ptr()))
            flat += [] if stride is None else [ctypes.c_int64(stride)]
        rows, columns = len(topology.row_offsets) - 1, len(topology.transposed_offsets) - 1
        indices = [tensor.contiguous() for tensor in topology.tensors()]
        described = _Topology(
            rows, columns, *topology.block, topology.active, *(tensor.data_ptr() for tensor in indices)
        )
        status = getattr(_library(self.tier() or ""), f"evergraft_{product}")(
            ctypes.byref(described),
            *flat,
            ctypes.c_int64(activation.shape[0]),
            ctypes.c_int(DTYPES[activation.dtype]),
            ctypes.byref(_Threads(_openmp(), torch.get_num_threads())),
        )
        if status == OUT_OF_MEMORY:
            raise MemoryError(f"the native {product} of a {rows} x {columns} topology found no memory for its tiles")
        if status == MALFORMED:
            raise EvergraftError(
                "the topology's indices contradict each other; make it with BlockTopology's constructors"
            )


def _check_tier(tier: str) -> str:
    if tier not in runnable_tiers():
        runnable = ", ".join(runnable_tiers()) or "none"
        raise EvergraftError(f"tier {tier!r} of the native CPU products cannot run here; choose one of {runnable}")
    return tier


@cache
def runnable_tiers() -> tuple[str, ...]:
    """The tiers that were built and that this processor can run, ascending."""
    if not (_folder() / _file("portable")).exists():
        return ()
    best = _library("portable").evergraft_best_tier()
    return tuple(tier for tier in TIERS[: best + 1] if (_folder() / _file(tier)).exists())


@cache
def _library(tier: str) -> ctypes.CDLL:
    return ctypes.CDLL(str(_folder() / _file(tier)))


def _file(tier: str) -> str:
    return f"libevergraft_{tier}.so"


@cache
def _folder() -> Path:
    """Where the build put the libraries: in the package, or beside it where it is installed editable."""
    folders = [Path(path) / "native" for path in evergraft.__path__]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


@cache
def _openmp() -> int | None:
    """`GOMP_parallel` of the OpenMP that torch has loaded, so that its threads and ours are the same ones.

    None where torch uses another kind of threads: the products then run on the calling thread alone.
    """
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    except OSError:
        return None
    paths = dict.fromkeys(line.split()[-1] for line in maps.splitlines() if "omp" in line.rpartition("/")[2])
    for path in paths:
        try:
            return ctypes.cast(ctypes.CDLL(path).GOMP_parallel, ctypes.c_void_p).value
        except (OSError, AttributeError):
            continue
    return None


@cache
def _warn_of_missing_libraries() -> None:
    warnings.warn(
        "evergraft was installed without its native CPU products (no C++ compiler was found then), so sparse layers "
        "run on the slow reference products; install GCC or Clang and reinstall evergraft",
        stacklevel=2,
    )


def _rows(x: Tensor) -> tuple[Tensor, int]:
    """A matrix whose features lie side by side, and how far apart its tokens are."""
    if x.stride(1) != 1 or x.stride(0) < x.shape[1]:
        x = x.contiguous()
    return x, x.stride(0)
