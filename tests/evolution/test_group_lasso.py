"""Decoupled Group Lasso against the paper's formula, weight by weight."""

from __future__ import annotations

import math

import pytest

from evergraft import SparseLinear
from evergraft.evolution.group_lasso import apply_group_lasso


def test_group_lasso_is_the_formula():
    layer = SparseLinear.random(8, 8, 0.5, (2, 4)).double()
    before = layer.values.detach().clone()
    apply_group_lasso([layer], learning_rate=0.1, strength=3.0)
    for block, was in zip(layer.values.tolist(), before.tolist(), strict=True):
        norm = math.sqrt(sum(w * w for row in was for w in row))
        for row, row_was in zip(block, was, strict=True):
            for got, w in zip(row, row_was, strict=True):
                assert got == pytest.approx(w - 0.1 * 3.0 * 0.02 * math.sqrt(8) * w / (norm + 1e-6), rel=1e-12)
