"""The GPU kernels as a backend wherever the tests run."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from evergraft.sparse.products import BACKENDS
from tests.sparse.products.gpu_kernels import BACKEND, NATIVE, tuned_kernels


@pytest.fixture(scope="module")
def gpu_backend() -> Iterator[None]:
    """Make `backend=BACKEND` compute by the GPU kernels, on the CPU in Triton's interpreter if there is no GPU."""
    pytest.importorskip("triton")
    with pytest.MonkeyPatch.context() as patch:
        for kernel in tuned_kernels():
            patch.setattr(kernel, "configs", kernel.configs[:1])  # with one choice nothing is measured
        if not NATIVE:
            _teach_interpreter(patch)
            BACKENDS.register(BACKEND)(_interpreted_backend())
        yield
    if not NATIVE:
        BACKENDS.unregister(BACKEND)


def _interpreted_backend() -> SimpleNamespace:
    """The kernels as a backend that takes CPU tensors."""
    from evergraft.sparse.products import gpu

    products = {name: getattr(gpu, name) for name in ("forward", "input_gradient", "weight_gradient")}
    return SimpleNamespace(name=BACKEND, supports=lambda x, values: x.dtype in gpu.DTYPES, **products)


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
