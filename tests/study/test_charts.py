"""What charts draw."""

from __future__ import annotations

from evergraft.study.charts.loss_against_cost import loss_against
from evergraft.study.charts.loss_curves import loss_curves
from evergraft.study.charts.memory import memory
from evergraft.study.collection import collect
from evergraft.study.pareto import FLOPS


def test_hovering_names_the_axis_that_a_button_chose(finished_study):
    study, _ = finished_study
    figure = loss_curves(collect([study.path]))
    said = [button.args[0]["hovertemplate"] for button in figure.layout.updatemenus[0].buttons]
    assert [lines[1].partition("<br>")[2].partition(":")[0] for lines in said] == ["step %{x", "%{x", "%{x"]
    assert ["step" in said[0][1], "FLOPs" in said[1][1], " s:" in said[2][1]] == [True, True, True]
    assert figure.data[1].hovertemplate == said[0][1]


def test_a_dense_line_joins_models_that_were_trained_alike(record, collection):
    """Whatever their family is called; models of other conditions have lines of their own."""
    found = loss_against(
        collection(
            record(4.0, 1.0, model="tiny", density=1),
            record(3.0, 10.0, model="mini", density=1, family="wide"),
            record(3.5, 0.5, model="tiny", density=1, steps=2000),
            record(3.4, 0.7, density=0.1),
        ),
        FLOPS,
    )
    lines = {trace.name: tuple(trace.x) for trace in found.data if trace.mode == "lines"}
    assert lines == {
        "dense, interpolated, steps 1000": (1.0, 10.0),
        "dense, interpolated, steps 2000": (0.5,),
        "dynamic, Pareto front, steps 1000": (0.7,),
    }


def test_models_of_one_file_name_are_told_apart(record, collection):
    runs = collection(*(record(3.0, cost, model=f"/{cost}/config.json", density=1) for cost in (1.0, 2.0)))
    assert len(set(memory(runs).data[0].y)) == 2
    (points,) = [trace for trace in loss_against(runs, FLOPS).data if trace.text]
    assert [name.strip() for name in points.text] == ["/1.0/config.json", "/2.0/config.json"]
