"""The GPU backend wherever the tests run: natively on a GPU, else on the CPU in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import evergraft.sparse.products as products

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NATIVE = DEVICE == "cuda"
BACKEND = "gpu" if NATIVE else "interpreted"


@pytest.fixture(scope="module")
def backend() -> Iterator[str]:
    """The name that `backend=` takes for the GPU kernels; without a GPU, `interpreted` is registered for it."""
    pytest.importorskip("triton")
    with pytest.MonkeyPatch.context() as patch:
        for kernel in tuned_kernels():
            patch.setattr(kernel, "configs", kernel.configs[:1])  # with one choice nothing is measured
        if not NATIVE:
            _teach_interpreter(patch)
            patch.setattr(products, "_backends", {"interpreted": interpreted_backend(), **products._backends})
        yield BACKEND


def tuned_kernels() -> dict[Any, tuple[int, int]]:
    """The kernels whose tiles are chosen by measuring, and for each a block shape that calls it."""
    if find_spec("triton") is None:
        return {}
    from evergraft.sparse.products.gpu import gather, sample, spread

    return {
        gather._gather_dot: (16, 16),
        gather._gather_narrow: (2, 2),
        sample._sample_dot: (16, 16),
        spread._spread_dot: (16, 1),
    }


def interpreted_backend() -> SimpleNamespace:
    """The kernels as a backend that `auto` passes over (it is registered first) and that takes CPU tensors."""
    from evergraft.sparse.products import gpu

    functions = {name: getattr(gpu, name) for name in ("forward", "input_gradient", "weight_gradient")}
    return SimpleNamespace(name="interpreted", supports=lambda x, values: x.dtype in gpu.DTYPES, **functions)


def _teach_interpreter(patch: pytest.MonkeyPatch) -> None:
    """Triton's interpreter multiplies the bit patterns of bfloat16 as if they were integers; decode them first."""
    from triton.runtime import interpreter

    def decoded(handle: interpreter.TensorHandle) -> np.ndarray:
        if handle.dtype.scalar.is_bf16():
            return (handle.data.astype(np.uint32) << 16).view(np.float32)
        return handle.data

    def create_dot(self, a, b, d, input_precision, max_num_imprecise_acc):
        product = np.matmul(decoded(a), decoded(b), dtype=d.data.dtype)
        return interpreter.TensorHandle(product + d.data, d.dtype.scalar)

    patch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)
