"""The page: its structure always, and what a browser makes of it where one is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from evergraft.study.report import report

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
    assert structure.charts == 10
    assert "Small &lt;study&gt;" in text
    assert "block 5x5 does not divide" in text
    assert "6 of 8" in text
    assert f"evergraft study run {study.path}" in text


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
def test_in_a_browser(page, tmp_path):
    """Every chart is drawn, nothing is asked of the network, and the page is not blank."""
    command = [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}"]
    dumped = subprocess.run([*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=240)
    assert dumped.stdout.count('class="main-svg"') >= 10
    assert len(re.findall(r'class="[^"]*js-plotly-plot', dumped.stdout)) == 10
    picture = tmp_path / "page.png"
    subprocess.run([*command, f"--screenshot={picture}", page.as_uri()], capture_output=True, timeout=240)
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    assert pixels.shape[1] >= 1280
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 200
