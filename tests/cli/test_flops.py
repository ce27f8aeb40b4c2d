"""`evergraft flops`: the figures of the paper, and those of a whole run."""

from __future__ import annotations

import json

import pytest


def test_flops(run):
    code, out, _ = run("flops", "--model", "small", "--density", 1, "--json")
    assert code == 0
    assert json.loads(out)["flops_per_sequence"] == pytest.approx(10.07e9, rel=5e-4)
    figures = json.loads(run("flops", "--model", "medium", "--density", 0.1, "--json")[1])
    assert figures["flops_per_sequence"] == pytest.approx(2.738e9, rel=5e-4)
    assert figures["bytes"].keys() >= {"weights", "gradients", "optimizer"}
    longer = json.loads(run("flops", "--model", "medium", "--sequence-length", 512, "--sequences", 10, "--json")[1])
    assert longer["flops_total"] == 10 * longer["flops_per_sequence"]
