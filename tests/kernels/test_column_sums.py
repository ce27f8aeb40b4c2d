"""Native sums of columns against torch's."""

from __future__ import annotations

import pytest
import torch

from evergraft.bench.timing import torch_threads
from evergraft.kernels import column_sums as module
from evergraft.kernels.column_sums import column_sums
from evergraft.kernels.native import runnable_tiers


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (3, 100), (64, 16), (67, 33), (1000, 257), (7, 0)], ids=str)
@pytest.mark.parametrize("tier", runnable_tiers())
def test_equals_torchs_sum(tier, shape, dtype, monkeypatch):
    monkeypatch.setenv("EVERGRAFT_CPU_TIER", tier)
    matrix = torch.randn(shape).to(dtype)
    got, expected = column_sums(matrix), matrix.double().sum(0)
    assert got.dtype == dtype
    if dtype == torch.float32:
        torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)
    else:
        torch.testing.assert_close(got, expected.to(dtype), rtol=2**-7, atol=1e-5)


def odd_matrices():
    whole = torch.randn(40, 60)
    return {
        "slices": whole[:, 7:29],
        "every second row": whole[::2],
        "every second column": whole[:, ::2],
        "transposed": whole.t(),
        "one row expanded": whole[:1].expand(40, 60),
        "one column expanded": whole[:, :1].expand(40, 60),
        "negative": torch._neg_view(whole),
        "double": whole.double(),
        "zero without memory": torch._efficientzerotensor((3, 4)),
    }


@pytest.mark.parametrize("name", odd_matrices())
def test_any_matrix(name):
    matrix = odd_matrices()[name]
    torch.testing.assert_close(column_sums(matrix), matrix.sum(0), rtol=1e-5, atol=1e-5)


def test_threads_change_nothing():
    matrix = torch.randn(333, 65)
    results = []
    for count in (1, 3):
        with torch_threads(count):
            results.append(column_sums(matrix))
    assert torch.equal(*results)


def test_transforms_go_to_torch(monkeypatch):
    monkeypatch.setattr(module, "call", None)
    matrices = torch.randn(2, 5, 4)
    assert torch.equal(torch.vmap(column_sums)(matrices), matrices.sum(1))
