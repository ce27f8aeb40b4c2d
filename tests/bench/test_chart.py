"""The break-even chart, and where results are kept."""

from __future__ import annotations

import json

import pytest

from evergraft import EvergraftError
from evergraft.bench.chart import break_even, by_block, plot
from evergraft.bench.results import append, check_destination

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


def test_results_are_appended(tmp_path):
    assert append(tmp_path, RESULT) == tmp_path / "products.json"
    append(tmp_path / "products.json", RESULT | {"seed": 1})
    assert [result.get("seed") for result in json.loads((tmp_path / "products.json").read_text())] == [None, 1]


@pytest.mark.parametrize("content", ["not json", '{"a": 1}'])
def test_a_foreign_file_is_left_alone(tmp_path, content):
    (tmp_path / "file.json").write_text(content)
    with pytest.raises(EvergraftError, match="holds no JSON array of results"):
        append(tmp_path / "file.json", RESULT)
    assert (tmp_path / "file.json").read_text() == content


def test_destination_is_checked_first(tmp_path):
    check_destination(None, "--plot")
    check_destination(tmp_path / "new.json", "--output", holds_results=True)
    (tmp_path / "chart.html").write_text("<html>")
    check_destination(tmp_path / "chart.html", "--plot")
    with pytest.raises(EvergraftError, match="holds no JSON array of results"):
        check_destination(tmp_path / "chart.html", "--output", holds_results=True)
    with pytest.raises(EvergraftError, match=r"--plot .*chart.html: the folder .* does not exist"):
        check_destination(tmp_path / "none" / "chart.html", "--plot")
