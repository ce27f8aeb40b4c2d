"""Backends: what computes the three products of a sparse layer. Each is one file, chosen by name.

A backend has `supports(x, values)` and the products `forward`, `input_gradient` and `weight_gradient`. `dense` is the
reference: every other backend is compared with it in the tests. `evergraft.sparse.linear` makes a differentiable
function of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from evergraft.errors import EvergraftError
from evergraft.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from evergraft.sparse.topology import BlockTopology


class Backend(Protocol):
    """An object or a module that computes products; x and grad are two-dimensional and may have any strides.

    Attributes:
        name: what benchmarks and reports call the backend.
    """

    name: str

    def supports(self, x: Tensor, values: Tensor) -> bool:
        """Whether the products can run on tensors of these devices, dtypes and shapes."""
        ...

    def forward(self, x: Tensor, values: Tensor, topology: BlockTopology, bias: Tensor | None) -> Tensor:
        """Compute x W^T + bias: x [tokens, in], values [active, R, C], bias [out] or None -> [tokens, out]."""
        ...

    def input_gradient(self, grad: Tensor, values: Tensor, topology: BlockTopology) -> Tensor:
        """Compute grad W: grad [tokens, out], values [active, R, C] -> [tokens, in]."""
        ...

    def weight_gradient(self, grad: Tensor, x: Tensor, topology: BlockTopology) -> Tensor:
        """Compute the active blocks of grad^T x: grad [tokens, out], x [tokens, in] -> [active, R, C]."""
        ...


BACKENDS: Registry[Backend] = Registry(
    "backend",
    "evergraft.backends",
    __name__,
    attribute="BACKEND",
    methods=("name", "supports", "forward", "input_gradient", "weight_gradient"),
    reserved=("auto",),
)
_REFERENCE = "dense"


def backend_names() -> list[str]:
    """What `backend=` accepts: `auto` and the names of the registry."""
    return ["auto", *BACKENDS.names()]


def check_backend(name: str) -> str:
    """Return `name`.

    Raises:
        EvergraftError: no backend has that name.
    """
    if name not in backend_names():
        raise EvergraftError(f"no backend is called {name!r}; choose one of {', '.join(backend_names())}")
    return name


def choose_backend(name: str, x: Tensor, values: Tensor) -> Backend:
    """The named backend; for `auto` the first that supports the tensors, the one registered last tried first.

    Raises:
        EvergraftError: no backend has that name, or the named one does not support the tensors.
    """
    if name == "auto":
        return next(backend for backend in map(BACKENDS.get, _by_preference()) if backend.supports(x, values))
    check_backend(name)
    backend = BACKENDS.get(name)
    if not backend.supports(x, values):
        raise EvergraftError(
            f"backend {name!r} cannot multiply {x.dtype} inputs on {x.device} with blocks of "
            f"{tuple(values.shape[1:])}; choose another backend or 'auto'"
        )
    return backend


def _by_preference() -> list[str]:
    """Names from the one that was registered last to the reference, which supports everything."""
    return [name for name in reversed(BACKENDS.names()) if name != _REFERENCE] + [_REFERENCE]
