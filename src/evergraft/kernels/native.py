"""The bridge to the native library: which instruction set to use, when it can serve, and how a function is called.

The C++ code in native/ is compiled once for each *tier*, an instruction set, into a library of its own. By default
the best tier that this processor can run is used; the environment variable EVERGRAFT_CPU_TIER names another. The
functions are called through ctypes and run on torch's own threads.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

import evergraft
from evergraft.errors import EvergraftError

TIERS = ("portable", "avx2", "avx512", "avx512bf16", "amx")  # from slow to fast, in the order of native/tier.cpp
DTYPES = {torch.float32: 0, torch.bfloat16: 1}  # the enumeration `Dtype` of native/
OUT_OF_MEMORY, MALFORMED = 1, 2  # the enumeration `Status` of native/


class _Threads(ctypes.Structure):
    """The structure `Threads` of native/: the OpenMP function that starts threads, and how many to start."""

    _fields_ = (("parallel", ctypes.c_void_p), ("count", ctypes.c_int))


Argument = Tensor | int | float | ctypes.Structure | ctypes.c_int | ctypes.c_uint64 | None


def call(function: str, *arguments: Argument, tier: str | None = None) -> int:
    """Call a native function on as many threads as torch uses.

    The native code reads and writes bare memory: shapes, dtypes and strides are the caller's to check.

    Args:
        function: the name of the C function without its prefix `evergraft_`.
        *arguments: what the C function takes, but for the threads. A tensor or a structure is passed by address, None
            as a null pointer, an int as an int64_t, a float as a float, and a number of ctypes as what it is.
        tier: one of `runnable_tiers()`; by default `default_tier()`.

    Returns:
        0 if the function succeeded, or `MALFORMED` if it found the indices of a topology to contradict each other.

    Raises:
        MemoryError: the function could not allocate its working memory.
        EvergraftError: EVERGRAFT_CPU_TIER names a tier that cannot run here, or a tensor is none that `serves` takes.

    Example:
        >>> x = torch.randn(5)
        >>> y = torch.empty_like(x)
        >>> call("gelu", x, y, None, x.numel(), ctypes.c_int(DTYPES[x.dtype]))  # no slope is asked for
        0
    """
    arguments = tuple(_with_numbers(argument) if isinstance(argument, Tensor) else argument for argument in arguments)
    threads = _Threads(_openmp(), torch.get_num_threads())
    status: int = _function(tier or default_tier() or TIERS[0], function)(
        *map(_native, arguments), ctypes.byref(threads)
    )
    if status == OUT_OF_MEMORY:
        raise MemoryError(f"the native function {function} could not allocate its working memory")
    return status


def serves(*tensors: Tensor) -> bool:
    """Whether native functions can work on these tensors here and now.

    They can if a native library was built, all tensors are plain ones on the CPU in fp32 or bf16, no graph is
    being compiled or traced, and no transform of `torch.func` is active.
    """
    return not torch.compiler.is_compiling() and reads(*tensors) and not is_transformed() and default_tier() is not None


def reads(*tensors: Tensor) -> bool:
    """Whether native functions can read these tensors: plain ones on the CPU, in fp32 or bf16.

    Under `torch.jit.trace` they cannot: there, sizes are tensors, and only torch's operators are recorded.
    """
    return (
        all(is_plain(tensor) and tensor.device.type == "cpu" and tensor.dtype in DTYPES for tensor in tensors)
        and not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    )


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is strided and no subclass, whose memory might hold anything."""
    return type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided


def holds_numbers(tensor: Tensor) -> bool:
    """Whether a plain tensor's memory holds its numbers as they are.

    torch has tensors whose sign or conjugate is yet to be taken, and some that are zero without memory.
    """
    return not (tensor.is_neg() or tensor.is_conj() or tensor._is_zerotensor())


def is_transformed() -> bool:
    """Whether a transform of `torch.func`, such as `vmap` or `grad`, is active. It only sees torch's operators."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def check_tier(tier: str) -> str:
    """Return `tier` if it can run here.

    Raises:
        EvergraftError: it is not among `runnable_tiers()`.
    """
    if tier not in runnable_tiers():
        runnable = ", ".join(runnable_tiers()) or "none"
        raise EvergraftError(f"tier {tier!r} of the native CPU products cannot run here; choose one of {runnable}")
    return tier


def default_tier() -> str | None:
    """The tier that the environment variable EVERGRAFT_CPU_TIER names, else the best one that can run here.

    Returns:
        One of `runnable_tiers()`, or None if no native library was built.

    Raises:
        EvergraftError: the variable names a tier that cannot run here.
    """
    asked = os.environ.get("EVERGRAFT_CPU_TIER")
    return check_tier(asked) if asked else next(reversed(runnable_tiers()), None)


@cache
def runnable_tiers() -> tuple[str, ...]:
    """The tiers that were built and that this processor can run, from slow to fast; empty if none was built."""
    if not (_folder() / _file("portable")).exists():
        return ()
    best = _library("portable").evergraft_best_tier()
    return tuple(tier for tier in TIERS[: best + 1] if (_folder() / _file(tier)).exists())


def _with_numbers(tensor: Tensor) -> Tensor:
    """The tensor, or a copy of the same strides if its memory does not hold its numbers as they are."""
    if not is_plain(tensor):
        raise EvergraftError(f"native functions take plain strided tensors; got {type(tensor).__name__}")
    if holds_numbers(tensor):
        return tensor
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype).copy_(tensor)


def _native(argument: Argument) -> object:
    """The argument as ctypes passes it on."""
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, int):
        return ctypes.c_int64(argument)
    if isinstance(argument, float):
        return ctypes.c_float(argument)
    return ctypes.byref(argument) if isinstance(argument, ctypes.Structure) else argument


@cache
def _function(tier: str, name: str) -> Callable[..., int]:
    function: Callable[..., int] = getattr(_library(tier), f"evergraft_{name}")
    return function


@cache
def _library(tier: str) -> ctypes.CDLL:
    return ctypes.CDLL(str(_folder() / _file(tier)))


def _file(tier: str) -> str:
    return f"libevergraft_{tier}.so"


@cache
def _folder() -> Path:
    """Where the build put the libraries: inside the package, or in site-packages if the package is editable."""
    folders = [Path(path) / "native" for path in evergraft.__path__]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


@cache
def _openmp() -> int | None:
    """The address of `GOMP_parallel` in the OpenMP library that torch has loaded, so that both share their threads.

    It is None if torch uses threads of another kind; native functions then run on the calling thread alone.
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
