"""The report: its structure always, and what a browser makes of it where one is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from evergraft.bert.model import SparseBertForPreTraining, create_model
from evergraft.errors import EvergraftError
from evergraft.study.charts import loss_against, loss_curves, memory
from evergraft.study.collection import collect, read_run
from evergraft.study.report import report, to_markdown
from evergraft.study.topologies import _last_topologies, first_topology, layer_pictures
from evergraft.training.pretrain import _config

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=20000",
    "--window-size=1300,6000",
]
SECTIONS = ["results", "pareto", "static", "curves", "exploration", "memory", "topologies", "how"]


@pytest.fixture(scope="module")
def page(finished_study):
    """The report's file."""
    study, _ = finished_study
    return report([study.path])[1]


class Structure(HTMLParser):
    """Collects what a page holds."""

    def __init__(self) -> None:
        super().__init__()
        self.ids, self.links, self.loads, self.charts, self.open = [], [], [], 0, []

    def handle_starttag(self, tag, attributes):
        facts = dict(attributes)
        self.ids += [facts["id"]] if tag in ("section", "table") and "id" in facts else []
        self.links += [facts["href"]] if tag == "a" else []
        self.loads += [facts[name] for name in ("src", "href") if tag in ("script", "link", "img") and name in facts]
        self.charts += facts.get("class") == "plotly-graph-div"
        if tag not in ("meta", "img", "link", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_structure(page, finished_study):
    study, _ = finished_study
    assert page == study.output / "study.html"
    structure = Structure()
    text = page.read_text()
    structure.feed(text)
    assert structure.open == []
    assert len(set(structure.ids)) == len(structure.ids)
    assert [name for name in structure.ids if not name.startswith("table-")] == SECTIONS
    assert {link.removeprefix("#") for link in structure.links} == set(SECTIONS)
    assert all(load.startswith("data:image/png;base64,") for load in structure.loads)  # nothing comes from elsewhere
    assert structure.charts == 8
    assert "Small &lt;study&gt;" in text
    assert "block 5x5 does not divide" in text
    assert "6 of 8" in text
    assert f"evergraft study run {study.path}" in text


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
def test_in_a_browser(page, tmp_path):
    """Every chart is drawn, nothing is asked of the network, and the page is not blank."""
    command = [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}"]
    dumped = subprocess.run([*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=240)
    assert dumped.stdout.count('class="main-svg"') >= 8
    assert len(re.findall(r'class="[^"]*js-plotly-plot', dumped.stdout)) == 8
    picture = tmp_path / "page.png"
    subprocess.run([*command, f"--screenshot={picture}", page.as_uri()], capture_output=True, timeout=240)
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    assert pixels.shape[1] >= 1280
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 200


def test_a_report_of_runs(finished, finished_study, tmp_path):
    study, _ = finished_study
    text, path = report([finished, study.runs[0].folder], output=tmp_path / "new" / "page.html")
    assert path.read_text() == text
    assert "2 runs" in text
    markdown, nowhere = report([finished], "markdown")
    assert nowhere is None
    assert markdown.startswith("# finished\n")
    assert "| MLM loss, nats |" in markdown


def test_bad_targets(finished, tmp_path, finished_study):
    study, _ = finished_study
    bad = [
        ([tmp_path], "is not a run's folder"),
        ([study.path, finished], "report on one study at a time"),
        ([finished, finished], "is named twice"),
        ([tmp_path / "missing.yaml"], "study .* does not exist"),
    ]
    for targets, sentence in bad:
        with pytest.raises(EvergraftError, match=sentence):
            report(targets)
    unfinished = tmp_path / "unfinished"
    shutil.copytree(finished, unfinished, ignore=shutil.ignore_patterns("result.json"))
    with pytest.raises(EvergraftError, match="holds an unfinished run; finish it with"):
        report([unfinished])
    with pytest.raises(EvergraftError, match="is a folder; name the file to write"):
        report([finished], output=tmp_path)
    empty = tmp_path / "empty.yaml"
    empty.write_text(f"title: None yet\nbase: {{steps: 100}}\noutput: {tmp_path / 'none'}\ngrid: {{density: 1}}\n")
    with pytest.raises(EvergraftError, match="no run has finished yet; run it with: evergraft study run"):
        report([empty])


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("result.json", "{}", "result.json is torn; remove .* and have it written again"),
        ("result.json", "[1]", "result.json is torn"),
        ("environment.json", '{"corpus": "x", "corpus_identity": "y"}', "environment.json is torn: it lacks command"),
        (
            "metrics.jsonl",
            '{"step": 1}\n5\n{"step": 2}\n',
            "metrics.jsonl is torn: line 2 holds no step; remove that line",
        ),
        ("metrics.jsonl", '{"step": 1, "seconds": 1}\n', "metrics.jsonl is torn: line 1 lacks flops, mlm_loss; remove"),
        (
            "topology.jsonl",
            '{"step": 1, "explored": 1}\n',
            "topology.jsonl is torn: line 1 lacks layer, removed_new_ratio",
        ),
        (
            "model/config.json",
            "{",
            "config.json has 1 bytes, expected .*; remove .*result.json and have it written again",
        ),
        ("model/model.safetensors", "", "model.safetensors has 0 bytes, expected"),
        ("finetune/x/result.json", "{", "finetune/x/result.json is torn; remove .*finetune/x and fine-tune again"),
        ("metrics.jsonl", '{"step": 1}\n\0\0\n{"step": 2}\n', "metrics.jsonl is torn: line 2 is not JSON"),
    ],
)
def test_a_damaged_run_is_told(finished, tmp_path, name, content, sentence):
    run = shutil.copytree(finished, tmp_path / "run")
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).write_text(content)
    with pytest.raises(EvergraftError, match=sentence):
        report([run], output=tmp_path / "page.html")


@pytest.mark.parametrize(
    ("figure", "value"),
    [
        ("validation_mlm_loss", float("nan")),
        ("validation_mlm_loss", -1.0),
        ("validation_nsp_loss", None),
        ("seconds", "long"),
        ("flops_total", 0),
        ("bytes", {}),
    ],
)
def test_a_figure_that_cannot_be_is_told(finished, tmp_path, figure, value):
    run = shutil.copytree(finished, tmp_path / "run")
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(result | {figure: value}))
    with pytest.raises(EvergraftError, match=f"result.json is torn: {figure}.*; remove .* and have it written again"):
        report([run], output=tmp_path / "page.html")


def test_a_step_that_was_logged_twice_counts_once(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    twice = next(line for line in lines if "mlm_loss" in line and "seconds" in line)
    (run / "metrics.jsonl").write_text("\n".join([twice, *lines]) + "\n")
    figures = [read_run(folder).figures["steady_seconds"] for folder in (finished, run)]
    assert figures[0] == figures[1]


def test_a_run_without_its_model_has_no_pictures(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(run / "model")
    text, _ = report([run], output=tmp_path / "page.html")
    assert 'id="results"' in text
    assert 'id="topologies"' not in text


def test_the_first_topology_is_the_one_the_run_began_with(finished, corpus):
    record = read_run(finished)
    model = create_model(_config(record.recipe, corpus), record.recipe.seed)
    last = dict(_last_topologies(finished / "model"))
    trained = SparseBertForPreTraining.from_pretrained(finished / "model")
    assert len(last) == 12
    for name, topology in last.items():
        first = first_topology(record, name, topology)
        assert torch.equal(first.positions, model.get_submodule(name).topology.positions)
        assert torch.equal(topology.positions, trained.get_submodule(name).topology.positions)


def test_pictures_count_what_was_kept(finished):
    record = read_run(finished)
    pictures = layer_pictures(record)
    assert len(pictures) == 12
    assert pictures[0].size == "32 x 32 in blocks of 4x4"
    assert all(0 < picture.kept < 1 and picture.explored > 0.25 for picture in pictures)
    assert len(layer_pictures(record, encoder_layers=1)) == 6


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
        "flops_total",
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
    (points,) = [trace for trace in loss_against(runs, "flops_total").data if trace.text]
    assert [name.strip() for name in points.text] == ["/1.0/config.json", "/2.0/config.json"]


def test_collections_name_what_is_missing(finished_study):
    study, _ = finished_study
    collection = collect([study.path])
    assert len(collection.records) == 6
    assert [name for name, _ in collection.unfinished] == [study.runs[3].name, study.runs[7].name]
    assert [one.label for one in collection.configurations] == ["dense", "static d0.25 4x4", "dynamic d0.25 4x4"]
    waiting = replace(collection, unfinished=(("one", "waiting"), ("two", "waiting"), *collection.unfinished[:1]))
    name, reason = collection.unfinished[0]
    assert f"not in the figures: 2 waiting, {name} ({reason})." in to_markdown(waiting)
