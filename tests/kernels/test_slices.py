"""Slices of one tensor are recognised as such, and nothing else is."""

from __future__ import annotations

import pytest
import torch

from evergraft.kernels.slices import joined


@pytest.mark.parametrize("shape", [(10,), (4, 10), (2, 3, 10), (1, 3, 10), (2, 1, 10), (0, 10)], ids=str)
@pytest.mark.parametrize("sizes", [(10,), (3, 7), (2, 5, 3)], ids=str)
def test_slices_of_a_tensor_are_that_tensor(shape, sizes):
    whole = torch.randn(3, *shape)[1]  # it begins amid its memory
    found = joined(whole.split(sizes, -1))
    assert found.data_ptr() == whole.data_ptr()
    assert found.is_contiguous()
    assert torch.equal(found, whole)


def test_a_dimension_of_one_may_have_any_stride():
    whole = torch.randn(1, 4, 6)
    slices = [part.as_strided(part.shape, (99, *part.stride()[1:])) for part in whole.split(3, -1)]
    assert torch.equal(joined(slices), whole)


def lookalikes():
    whole = torch.randn(4, 12)
    a, b, c = whole.split(4, -1)
    yield "another order", (b, a, c)
    yield "a gap", (a, c)
    yield "not all of a row", (a, b)
    yield "a copy", (a, b.clone(), c)
    yield "fewer rows", (a, b[:2], c)
    yield "rows below each other", whole.reshape(2, 2, 12).unbind(0)
    yield "another dtype", (a, b.view(torch.int32), c)
    yield "a sign to be taken", (a, torch._neg_view(b), c)
    yield "columns of a transposed matrix", tuple(whole.t().split(2, -1))
    yield "zero without memory", (torch._efficientzerotensor((4, 4)),) * 2


@pytest.mark.parametrize("name", [name for name, _ in lookalikes()])
def test_nothing_else_is(name):
    assert joined(dict(lookalikes())[name]) is None
