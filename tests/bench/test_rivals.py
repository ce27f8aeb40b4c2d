"""Every rival computes what it is timed for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evergraft.bench.products import sparse_products
from evergraft.bench.rivals import DENSE, PRODUCTS, SPARSE, Layer, rivals
from evergraft.sparse.products.dense import gather
from evergraft.sparse.topology import BlockTopology


def layer(block, dtype=torch.float32):
    topology = BlockTopology.random(48, 32, block, 0.3, np.random.default_rng(0))
    tensors = (torch.randn(shape).to(dtype) for shape in ((24, 32), (24, 48), (topology.active, *block), (48,)))
    return Layer(*tensors, topology)


def comparable(name, result, topology):
    """Whatever a library returns, as a dense tensor; of a weight gradient, the active blocks."""
    result = torch.as_tensor(result)
    result = result.to_dense() if result.layout != torch.strided else result
    return gather(result, topology) if name == "weight_gradient" and result.dim() == 2 else result


@pytest.mark.parametrize("block", [(1, 1), (4, 4), (16, 1), (8, 16)])
@pytest.mark.parametrize("rival", [*DENSE, *SPARSE])
def test_rivals_compute_the_products(block, rival):
    problem = layer(block)
    ours, theirs = sparse_products(problem, "dense"), rivals(problem)[rival]
    assert set(theirs.products) | set(theirs.missing) == set(PRODUCTS)
    assert theirs.dense == (rival in DENSE)
    for name, product in theirs.products.items():
        torch.testing.assert_close(comparable(name, product(), problem.topology), ours[name](), rtol=1e-4, atol=1e-4)


def test_dense_rivals_have_all_products():
    for name in DENSE:
        assert not rivals(layer((4, 4)))[name].missing or not torch.backends.mkldnn.is_available()


def test_a_rival_that_cannot_run_says_why(monkeypatch):
    found = rivals(layer((4, 4), torch.bfloat16))
    assert not found["nn.Linear"].missing
    assert all(reason and "\n" not in reason for rival in found.values() for reason in rival.missing.values())
    monkeypatch.setitem(SPARSE, "scipy", lambda _: {}["absent"])
    assert rivals(layer((4, 4)))["scipy"].missing == dict.fromkeys(PRODUCTS, "'absent'")


def test_dense_rivals_alone():
    assert set(rivals(layer((1, 1)), sparse=False)) == set(DENSE)
