"""Each script of examples/ runs to its end, on tiny sizes, and prints what it promises."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

from evergraft.evolution.growth import GROWTH_RULES

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch, capsys):
    """A function that runs a script in this process, and returns what it prints on standard output."""

    def call(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return call


def number(pattern: str, output: str) -> float:
    """The number that follows a pattern in the output."""
    found = re.search(pattern + r" +([\d.,]+\d)", output)
    assert found, f"{pattern!r} is not in {output!r}"
    return float(found[1].replace(",", ""))


def test_own_loop(example, text_file):
    output = example("own_loop.py", "--text", text_file, "--documents", 20, "--steps", 20)
    assert "12 layers made sparse" in output
    assert number("loss after training:", output) < number("loss before training:", output)
    assert number("explored:", output) > 10  # per cent, where it began
    assert 0 <= number("removed-new ratio:", output) <= 100


def test_trainer_resumes_bit_for_bit(example):
    output = example("trainer.py", "--steps", 10)
    assert number("explored:", output) > 25
    assert "the resumed run ends with the same weights: True" in output


def test_causal_lm_writes_the_same_text_when_dense(example, text_file):
    output = example("causal_lm.py", "--text", text_file, "--documents", 20, "--steps", 20, "--prompt", "the cat")
    assert "it writes: the cat" in output
    assert "the dense model writes the same: True" in output


def test_vit_has_fewer_parameters_when_sparse(example):
    output = example("vit.py", "--epochs", 1)
    rows = {line.split()[0]: line.split()[1:] for line in output.splitlines()[1:]}
    parameters = {name: int(cells[1].replace(",", "")) for name, cells in rows.items()}
    assert parameters["sparse"] < parameters["dense"] / 5
    assert all(0 <= float(cells[0].rstrip("%")) <= 100 for cells in rows.values())


def test_finetune_from_run(example, tmp_path, monkeypatch):
    monkeypatch.setenv("EVERGRAFT_CACHE", str(tmp_path / "cache"))
    output = example("finetune_from_run.py", "--output", tmp_path / "animals", "--steps", 20)
    assert number("validation loss", output) < number("before training", output)
    assert number("density", output) == pytest.approx(0.1, abs=0.001)
    assert (tmp_path / "animals" / "run" / "finetune" / "labels-s0" / "result.json").is_file()


def test_growth_rule_that_looks_at_gradients_finds_more_blocks(example):
    try:
        output = example("growth_rule.py", "--seeds", 1)
    finally:
        GROWTH_RULES.unregister("steepest-candidates")
    rows = {line.split()[0]: line.split()[1:] for line in output.splitlines()[1:]}
    found = {rule: float(cells[-1].rstrip("%")) for rule, cells in rows.items()}
    assert found["steepest-candidates"] > found["random"]


def test_the_table_names_every_script():
    table = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\((\w+\.py)\)", table)) == {path.name for path in EXAMPLES.glob("*.py")}
