"""`evergraft bench products`: the time of one sparse layer's three products, beside that of dense and sparse rivals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from evergraft.bench.peaks import Peak, measured_peak
from evergraft.bench.rivals import PRODUCTS, Layer, Rival, rivals
from evergraft.bench.timing import fastest, torch_threads
from evergraft.bert.ledger import Ledger, LinearCost
from evergraft.errors import EvergraftError
from evergraft.sparse import linear  # noqa: F401 - registers the operators of torch.ops.evergraft
from evergraft.sparse.config import INITIAL_STD
from evergraft.sparse.products import check_backend, choose_backend
from evergraft.sparse.topology import BlockTopology

SPARSE_ROUNDS = 3  # for sparse rivals: most are so slow that with more rounds they would take nearly all the time
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class ProductsBench:
    """A measurement of one layer, at one or more densities and blocks.

    Args:
        tokens: rows of the layer's input [tokens, in_features].
        in_features: features of the input.
        out_features: features of the output [tokens, out_features].
        densities: shares of the blocks that exist, in (0, 1]; every density is measured with every block.
        blocks: rows and columns of blocks.
        precision: `fp32` or `bf16`, for all tensors.
        threads: CPU threads for torch and the native products; None takes as many as torch has.
        rounds: how many rounds are timed; each figure is from the fastest.
        backend: name of the backend of the sparse products, or `auto`.
        device: `cpu` or `cuda`.
        sparse_rivals: whether to time the sparse products of other libraries too.
        seed: the seed of topologies and tensors.

    Example:
        >>> result = ProductsBench(tokens=512, densities=(0.1,), blocks=((16, 16),)).run()
        >>> result["ratio"]  # how many times faster than nn.Linear
    """

    tokens: int = 4096
    in_features: int = 768
    out_features: int = 3072
    densities: tuple[float, ...] = (0.1,)
    blocks: tuple[tuple[int, int], ...] = ((16, 16),)
    precision: str = "fp32"
    threads: int | None = None
    rounds: int = 7
    backend: str = "auto"
    device: str = "cpu"
    sparse_rivals: bool = True
    seed: int = 0

    def run(self, peak_size: int = 2048) -> dict[str, Any]:
        """Measure the layer.

        Args:
            peak_size: number of rows and columns of the matrices whose product measures the machine's peak.

        Returns:
            The settings, and beside them the layer's figures; with several densities or blocks, `results` is a list of
            the figures of each. Times are in seconds, rates in GFLOP/s, and a ratio is the rival's time over ours.

        Raises:
            EvergraftError: a setting out of range, or a block that does not divide the layer.
        """
        self._check()
        with torch_threads(self.threads):
            layers = list(self._layers())
            peak = measured_peak(DTYPES[self.precision], self.device, peak_size, self.rounds)
            results = [self._measure(layer, peak) for layer in layers]
            return self._settings() | (results[0] if len(results) == 1 else {"results": results})

    def _check(self) -> None:
        check_backend(self.backend)
        check_precision(self.precision)
        check_device(self.device)

    def _layers(self) -> Iterator[BlockTopology]:
        """All topologies. They are made first, so that a bad block or density shows before anything is timed."""
        for block in self.blocks:
            for density in self.densities:
                rng = np.random.default_rng(self.seed)
                yield BlockTopology.random(self.out_features, self.in_features, block, density, rng)

    def _settings(self) -> dict[str, Any]:
        return {
            "bench": "products",
            "tokens": self.tokens,
            "in": self.in_features,
            "out": self.out_features,
            "precision": self.precision,
            "threads": torch.get_num_threads(),
            "device": self.device,
            "seed": self.seed,
            "rounds": self.rounds,
        }

    @torch.no_grad()
    def _measure(self, topology: BlockTopology, peak: Peak) -> dict[str, Any]:
        layer = self._layer(topology)
        others = rivals(layer, self.sparse_rivals)
        tasks = {("", name): product for name, product in sparse_products(layer, self.backend).items()}
        few: dict[tuple[str, str], int] = {}
        for rival, other in others.items():
            tasks |= {(rival, name): product for name, product in other.products.items()}
            few |= {} if other.dense else {(rival, name): SPARSE_ROUNDS for name in other.products}
        # The values change every round, as after an optimiser step, so that a backend must derive anew what it keeps.
        fresh = lambda: layer.values.mul_(1.0)  # noqa: E731
        seconds = fastest(tasks, self.rounds, few=few, before_round=fresh, device=self.device, graphs=True)
        return self._figures(layer, peak, others, seconds)

    def _layer(self, topology: BlockTopology) -> Layer:
        dtype = DTYPES[self.precision]
        generator = torch.Generator().manual_seed(self.seed)
        normal: Callable[..., torch.Tensor] = lambda *shape: (  # noqa: E731
            torch.randn(*shape, generator=generator).to(self.device, dtype)
        )
        x, grad = normal(self.tokens, self.in_features), normal(self.tokens, self.out_features)
        values = normal(topology.active, *topology.block) * INITIAL_STD
        tensors = (tensor.to(self.device) for tensor in topology.tensors())
        return Layer(x, grad, values, normal(self.out_features), BlockTopology(topology.block, *tensors))

    def _figures(
        self, layer: Layer, peak: Peak, others: dict[str, Rival], seconds: dict[tuple[str, str], float]
    ) -> dict[str, Any]:
        topology = layer.topology
        backend = choose_backend(self.backend, layer.x, layer.values)
        total = sum(seconds["", name] for name in PRODUCTS)
        flops = 2 * self.tokens * layer.values.numel()
        compared = {name: _compare(name, rival, seconds, total) for name, rival in others.items()}
        whole = {name: compared[name]["seconds"] for name, rival in others.items() if rival.dense and not rival.missing}
        quickest = min(whole, key=lambda name: whole[name])
        dense_flops = 2 * self.tokens * self.in_features * self.out_features
        for name in whole:  # in a quiet moment a rival may have run faster than the product that measured the peak
            peak = max(peak, Peak(dense_flops / min(compared[name]["products"].values()) / 1e9, name))
        return {
            "block": f"{topology.block[0]}x{topology.block[1]}",
            "density": topology.density,
            "backend": backend.name,
            "tier": tier(backend),
            "peak": peak.to_dict(),
            "ratio": compared["nn.Linear"]["ratio"],
            "fastest_dense": quickest,
            "ratio_fastest_dense": compared[quickest]["ratio"],
            "seconds": total,
            **rates(3 * flops, total, peak),
            "products": {
                name: {
                    "seconds": seconds["", name],
                    "ratio": seconds["nn.Linear", name] / seconds["", name],
                    "ratio_fastest_dense": seconds[quickest, name] / seconds["", name],
                    **rates(flops, seconds["", name], peak),
                }
                for name in PRODUCTS
            },
            **_bytes(layer),
            "rivals": compared,
        }


def sparse_products(layer: Layer, backend: str) -> dict[str, Callable[[], torch.Tensor]]:
    """Evergraft's own three products by name, through the operators that autograd calls."""
    ops, topology = torch.ops.evergraft, layer.topology.tensors()
    return {
        "forward": lambda: ops.forward(layer.x, layer.values, layer.bias, *topology, backend),
        "input_gradient": lambda: ops.input_gradient(layer.grad, layer.values, *topology, backend),
        "weight_gradient": lambda: ops.weight_gradient(layer.grad, layer.x, layer.values, *topology, backend),
    }


def tier(backend: Any) -> str | None:
    """The instruction set that a backend has chosen on this machine; None if a library beneath it chooses."""
    return backend.tier() if hasattr(backend, "tier") else None


def rates(flops: float, seconds: float, peak: Peak) -> dict[str, float]:
    """GFLOP/s of the work that is really done, and their share of the measured peak.

    Args:
        flops: floating-point operations with existing weights; a multiply-add counts as two.
        seconds: the time they took.
        peak: the measured peak of the machine.
    """
    gflops = flops / seconds / 1e9
    return {"gflops": gflops, "peak_share": gflops / peak.gflops}


def check_precision(precision: str) -> None:
    """Refuse a precision that is neither fp32 nor bf16.

    Raises:
        EvergraftError: it is neither.
    """
    if precision not in DTYPES:
        raise EvergraftError(f"`precision` must be {' or '.join(DTYPES)}; got {precision}")


def check_device(device: str) -> None:
    """Refuse a device that does not exist or that this machine lacks.

    Raises:
        EvergraftError: it is neither `cpu` nor `cuda`, or torch sees no GPU.
    """
    if device not in ("cpu", "cuda"):
        raise EvergraftError(f"`device` must be cpu or cuda; got {device}")
    if device == "cuda" and not torch.cuda.is_available():
        raise EvergraftError("`device` cuda: torch sees no GPU on this machine; use cpu")


def _compare(name: str, rival: Rival, seconds: dict[tuple[str, str], float], ours: float) -> dict[str, Any]:
    products = {product: seconds[name, product] for product in rival.products}
    total = None if rival.missing else sum(products.values())
    return {
        "seconds": total,
        "ratio": total and total / ours,
        "products": products,
        "missing": rival.missing,
    }


def _bytes(layer: Layer) -> dict[str, Any]:
    """Bytes of fp32 weights, gradients, Adam's moments and indices, beside those of the dense twin."""
    topology = layer.topology
    out, into, weights = topology.out_features, topology.in_features, layer.values.numel()
    indices = sum(tensor.numel() for tensor in topology.tensors())
    ours, dense = (
        Ledger((LinearCost(out, into, *cost),), 0, 1, None).bytes for cost in ((weights, indices), (out * into, 0))
    )
    return {"bytes": ours, "bytes_dense": dense, "bytes_ratio": sum(ours.values()) / sum(dense.values())}
