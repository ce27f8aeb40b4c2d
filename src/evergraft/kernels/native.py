"""The native libraries (native/): one an instruction set, of which the machine's best is called through ctypes."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

import evergraft
from evergraft.errors import EvergraftError

TIERS = ("portable", "avx2", "avx512", "avx512bf16", "amx")  # ascending; the order is that of native/tier.cpp
DTYPES = {torch.float32: 0, torch.bfloat16: 1}  # `Dtype` of native/threads.hpp
OUT_OF_MEMORY, MALFORMED = 1, 2  # `Status` of native/threads.hpp


class _Threads(ctypes.Structure):
    """`Threads` of native/threads.hpp."""

    _fields_ = (("parallel", ctypes.c_void_p), ("count", ctypes.c_int))


Argument = Tensor | int | float | ctypes.Structure | ctypes.c_int | ctypes.c_uint64 | None


def call(function: str, *arguments: Argument, tier: str | None = None) -> int:
    """Call a native function with torch's threads.

    Args:
        function: its name without `evergraft_`.
        *arguments: a tensor or a structure is handed over by address, None as null, an int as int64_t, a float as
            float, numbers of ctypes as what they are.
        tier: one of `runnable_tiers()`; by default `default_tier()`.

    Returns:
        0, or MALFORMED.

    Raises:
        MemoryError: the function found no memory for its tiles.
    """
    threads = _Threads(_openmp(), torch.get_num_threads())
    status: int = _function(tier or default_tier() or TIERS[0], function)(
        *map(_native, arguments), ctypes.byref(threads)
    )
    if status == OUT_OF_MEMORY:
        raise MemoryError(f"the native {function} found no memory for its tiles")
    return status


def serves(*tensors: Tensor) -> bool:
    """Whether native functions can work on these tensors: fp32 or bf16 on the CPU, in no graph being compiled and under
    no transform of `torch.func`.
    """
    return (
        all(tensor.device.type == "cpu" and tensor.dtype in DTYPES for tensor in tensors)
        and not torch.compiler.is_compiling()
        and not is_transformed()
        and default_tier() is not None
    )


def is_transformed() -> bool:
    """Whether transforms of `torch.func` are at work, which only see through torch's own operators."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def check_tier(tier: str) -> str:
    """Return `tier`.

    Raises:
        EvergraftError: it is not among `runnable_tiers()`.
    """
    if tier not in runnable_tiers():
        runnable = ", ".join(runnable_tiers()) or "none"
        raise EvergraftError(f"tier {tier!r} of the native CPU products cannot run here; choose one of {runnable}")
    return tier


def default_tier() -> str | None:
    """The tier that the environment variable EVERGRAFT_CPU_TIER names, else the best; None where none was built.

    Raises:
        EvergraftError: the variable's is not among `runnable_tiers()`.
    """
    asked = os.environ.get("EVERGRAFT_CPU_TIER")
    return check_tier(asked) if asked else next(reversed(runnable_tiers()), None)


@cache
def runnable_tiers() -> tuple[str, ...]:
    """The tiers that were built and that this processor can run, ascending."""
    if not (_folder() / _file("portable")).exists():
        return ()
    best = _library("portable").evergraft_best_tier()
    return tuple(tier for tier in TIERS[: best + 1] if (_folder() / _file(tier)).exists())


def _native(argument: Argument) -> object:
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
