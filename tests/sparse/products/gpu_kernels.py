"""Where the tests of the GPU kernels run, and the problems that they solve: on a GPU, else in Triton's interpreter."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from evergraft import BlockTopology

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NATIVE = DEVICE == "cuda"
BACKEND = "gpu" if NATIVE else "interpreted"  # the second is registered by the fixture `gpu_backend`
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}


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


def problem(topology, dtype=torch.float32, tokens=37, seed=0):
    """X, values, bias and the gradient of y, on `DEVICE`."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (
        (tokens, topology.in_features),
        (topology.active, *topology.block),
        (topology.out_features,),
        (tokens, topology.out_features),
    )
    return [torch.randn(*shape, generator=generator).to(DEVICE, dtype) for shape in shapes]


def random_topology(block, rows=3, columns=5, density=0.3, seed=0):
    rng = np.random.default_rng(seed)
    return on_device(BlockTopology.random(rows * block[0], columns * block[1], block, density, rng))


def on_device(topology):
    return BlockTopology(topology.block, *(tensor.to(DEVICE) for tensor in topology.tensors()))
