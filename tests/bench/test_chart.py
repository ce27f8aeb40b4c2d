"""The break-even chart."""

from __future__ import annotations

import pytest

from evergraft.bench.chart import break_even, by_block, plot

POINTS = [("1x1", 0.8, 0.5), ("1x1", 0.1, 4.0), ("16x16", 0.1, 8.0), ("16x16", 0.8, 1.2)]
RESULT = {
    "bench": "products",
    "tokens": 16,
    "in": 32,
    "out": 64,
    "precision": "fp32",
    "threads": 1,
    "results": [{"block": block, "density": density, "ratio": ratio} for block, density, ratio in POINTS],
}


def test_break_even():
    assert break_even([(0.4, 0.5), (0.1, 2.0)]) == pytest.approx(0.2)
    assert break_even([(0.1, 3.0), (0.5, 1.0), (1.0, 0.6)]) == pytest.approx(0.5)
    assert break_even([(0.1, 3.0), (1.0, 1.1)]) is None
    assert break_even([(0.1, 0.9)]) is None


def test_lines_by_block():
    lines = by_block(RESULT)
    assert [point["density"] for point in lines["1x1"]] == [0.1, 0.8]
    assert list(by_block({"block": "4x4", "density": 0.1})) == ["4x4"]


def test_chart_is_one_file_that_needs_no_network(tmp_path):
    plot(RESULT, tmp_path / "chart.html")
    html = (tmp_path / "chart.html").read_text()
    assert "1x1, even at 0.40" in html
    assert "dense time" in html
    assert 'src="http' not in html
