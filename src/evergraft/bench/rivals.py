"""What the products of a sparse layer are compared with: dense and sparse products of well-maintained libraries."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from evergraft.kernels.onednn import has_onednn, onednn_linear
from evergraft.sparse.products.dense import scatter
from evergraft.sparse.topology import BlockTopology

PRODUCTS = ("forward", "input_gradient", "weight_gradient")


@dataclass(frozen=True)
class Layer:
    """The tensors of one sparse layer at one training step, all of one dtype and on one device.

    Attributes:
        x: the input [tokens, in].
        grad: the gradient of the output [tokens, out].
        values: the active blocks of the weight [active, R, C].
        bias: [out].
        topology: where the active blocks lie.
    """

    x: Tensor
    grad: Tensor
    values: Tensor
    bias: Tensor
    topology: BlockTopology


@dataclass(frozen=True)
class Rival:
    """One library's way to compute the products of a layer.

    Attributes:
        products: by name of the product, a call without arguments that computes it; a dense library computes the
            products with the whole weight [out, in].
        missing: for each product that the library does not have, by name, the reason.
        dense: whether the library computes with the whole weight, zeros included.
    """

    products: dict[str, Callable[[], Any]]
    missing: dict[str, str]
    dense: bool = False


def rivals(layer: Layer, sparse: bool = True) -> dict[str, Rival]:
    """All rivals by name; those that cannot run say why. What they store is made here, before any clock runs.

    Args:
        layer: the layer whose products they compute.
        sparse: whether to include the sparse rivals, most of which are slow.
    """
    makers = {**DENSE, **(SPARSE if sparse else {})}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse ")  # torch's sparse layouts are in beta
        return {name: _tried(make, layer, name in DENSE) for name, make in makers.items()}


def _tried(make: Callable[[Layer], dict[str, Callable[[], Any] | str]], layer: Layer, dense: bool) -> Rival:
    """The rival with those of its products that run; each is tried once."""
    products: dict[str, Callable[[], Any]] = {}
    missing: dict[str, str] = {}
    try:
        offered = make(layer)
    except Exception as error:  # whatever another library raises concerns that rival alone
        return Rival({}, dict.fromkeys(PRODUCTS, _reason(error)), dense)
    for name, product in offered.items():
        if isinstance(product, str):
            missing[name] = product
            continue
        try:
            product()
            products[name] = product
        except Exception as error:
            missing[name] = _reason(error)
    return Rival(products, missing, dense)


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _linear(layer: Layer) -> dict[str, Callable[[], Any] | str]:
    """The products of `nn.Linear` and its autograd: by MKL in fp32, oneDNN in bf16, cuBLAS on a GPU."""
    weight = scatter(layer.values, layer.topology)
    return {
        "forward": lambda: F.linear(layer.x, weight, layer.bias),
        "input_gradient": lambda: layer.grad @ weight,
        "weight_gradient": lambda: layer.grad.t() @ layer.x,
    }


def _onednn(layer: Layer) -> dict[str, Callable[[], Any] | str]:
    """Dense products by oneDNN, in fp32 too."""
    if layer.x.device.type != "cpu":
        raise RuntimeError("oneDNN multiplies on the CPU only")
    if not has_onednn(layer.x.dtype):
        raise RuntimeError(f"oneDNN has no product in {layer.x.dtype} with this torch on this processor")
    weight = scatter(layer.values, layer.topology)
    return {
        "forward": lambda: onednn_linear(layer.x, weight, layer.bias),
        "input_gradient": lambda: onednn_linear(layer.grad, weight.t()),
        "weight_gradient": lambda: onednn_linear(layer.grad.t(), layer.x.t()),
    }


def _torch_csr(layer: Layer) -> dict[str, Callable[[], Any] | str]:
    """Compressed sparse rows (CSR) of torch, which MKL multiplies on x86."""
    weight = scatter(layer.values, layer.topology)
    rows, columns = weight.to_sparse_csr(), weight.t().to_sparse_csr()
    pattern = torch.sparse_csr_tensor(
        rows.crow_indices(), rows.col_indices(), torch.zeros_like(rows.values()), rows.shape
    )
    return {
        "forward": lambda: (rows @ layer.x.t()).t() + layer.bias,
        "input_gradient": lambda: (columns @ layer.grad.t()).t(),
        "weight_gradient": lambda: torch.sparse.sampled_addmm(pattern, layer.grad.t(), layer.x, beta=0.0),
    }


def _torch_bsr(layer: Layer) -> dict[str, Callable[[], Any] | str]:
    """Block compressed sparse rows (BSR) of torch."""
    height, width = layer.topology.block
    weight = scatter(layer.values, layer.topology)
    rows, columns = weight.to_sparse_bsr((height, width)), weight.t().to_sparse_bsr((width, height))
    return {
        "forward": lambda: (rows @ layer.x.t()).t() + layer.bias,
        "input_gradient": lambda: (columns @ layer.grad.t()).t(),
        "weight_gradient": "torch has no sampled product for BSR",
    }


def _scipy(layer: Layer) -> dict[str, Callable[[], Any] | str]:
    """scipy.sparse on its one thread: CSR for 1x1 blocks, BSR for larger ones."""
    sparse = importlib.import_module("scipy.sparse")
    weight = scatter(layer.values, layer.topology).numpy()
    rows = sparse.bsr_matrix(weight, blocksize=layer.topology.block)
    if layer.topology.block == (1, 1):
        rows = rows.tocsr()
    columns = rows.T.tocsr() if layer.topology.block == (1, 1) else rows.T
    x, grad, bias = layer.x.t().numpy(), layer.grad.t().numpy(), layer.bias.numpy()
    return {
        "forward": lambda: (rows @ x).T + bias,
        "input_gradient": lambda: (columns @ grad).T,
        "weight_gradient": "scipy has no sampled product",
    }


DENSE = {"nn.Linear": _linear, "oneDNN": _onednn}
SPARSE = {"torch CSR": _torch_csr, "torch BSR": _torch_bsr, "scipy": _scipy}
