"""`evergraft bench products`: the figures it gives, not how fast they are."""

from __future__ import annotations

import pytest
import torch

from evergraft import EvergraftError
from evergraft.bench.products import ProductsBench
from evergraft.bench.rivals import DENSE, PRODUCTS, SPARSE
from evergraft.bench.timing import fastest


def bench(**settings):
    sizes = {"tokens": 16, "in_features": 32, "out_features": 64, "densities": (0.1,), "blocks": ((4, 4),)}
    return ProductsBench(**{**sizes, "rounds": 2, "backend": "dense", **settings})


def test_figures_of_one_layer():
    result = bench(threads=1).run(peak_size=32)
    assert result["density"] == 13 / 128
    assert result["block"] == "4x4"
    assert result["threads"] == 1
    assert (result["backend"], result["tier"]) == ("dense", None)
    assert set(result["products"]) == set(PRODUCTS)
    assert result["seconds"] == pytest.approx(sum(product["seconds"] for product in result["products"].values()))
    assert result["gflops"] == pytest.approx(3 * 2 * 16 * 13 * 16 / result["seconds"] / 1e9)
    assert result["peak_share"] == pytest.approx(result["gflops"] / result["peak"]["gflops"])
    dense = result["rivals"]["nn.Linear"]
    assert result["ratio"] == pytest.approx(dense["seconds"] / result["seconds"])
    forward = result["products"]["forward"]
    assert forward["ratio"] == pytest.approx(dense["products"]["forward"] / forward["seconds"])
    assert result["ratio_fastest_dense"] <= result["ratio"]
    assert set(result["rivals"]) == {*DENSE, *SPARSE}
    assert result["bytes"]["weights"] == 4 * (13 * 16 + 64)
    assert result["bytes_dense"]["optimizer"] == 2 * 4 * (32 * 64 + 64)
    assert result["bytes_ratio"] < 0.2


def test_several_blocks_and_densities():
    result = bench(densities=(0.1, 0.5), blocks=((1, 1), (16, 1)), sparse_rivals=False).run(peak_size=32)
    measured = [(figures["block"], round(figures["density"], 1)) for figures in result["results"]]
    assert measured == [("1x1", 0.1), ("1x1", 0.5), ("16x1", 0.1), ("16x1", 0.5)]
    assert "ratio" not in result


def test_bf16():
    result = bench(precision="bf16").run(peak_size=32)
    assert result["precision"] == "bf16"
    assert result["ratio"] > 0


def test_threads_are_put_back():
    before = torch.get_num_threads()
    bench(threads=before + 1).run(peak_size=32)
    assert torch.get_num_threads() == before


def test_tier_is_the_backends(monkeypatch):
    from evergraft.sparse.products import dense

    monkeypatch.setattr(dense, "tier", lambda: "avx2", raising=False)
    assert bench().run(peak_size=32)["tier"] == "avx2"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"blocks": ((5, 4),)}, "block 5x4 does not divide a weight of 64 x 32"),
        ({"densities": (0.0,)}, "density must be above 0"),
        ({"densities": (1.5,)}, "density must be above 0 and at most 1"),
        ({"precision": "fp8"}, "`precision` must be fp32 or bf16; got fp8"),
        ({"device": "tpu"}, "`device` must be cpu or cuda; got tpu"),
        ({"backend": "quick"}, "no backend is called 'quick'"),
    ],
)
def test_bad_settings(settings, says):
    with pytest.raises(EvergraftError, match=says):
        bench(**settings).run(peak_size=32)


def test_fastest_takes_turns():
    calls = []
    tasks = {name: lambda name=name: calls.append(name) for name in "abc"}
    seconds = fastest(tasks, 3, few={"b": 1}, before_round=lambda: calls.append("-"))
    assert "".join(calls) == "abc" + "-abc" + "-ac" + "-ac"
    assert all(0 <= value < 1 for value in seconds.values())
