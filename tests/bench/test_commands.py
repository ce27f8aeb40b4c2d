"""`evergraft bench ...` as typed: JSON, files, and one sentence for everything that can be wrong."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from evergraft import cli
from evergraft.bench import products, profile, step
from evergraft.bench.peaks import Peak
from evergraft.kernels import allocator


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Call the command line in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr(allocator, "keep_freed_memory", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for module in (products, step):
        monkeypatch.setattr(module, "measured_peak", lambda *_: Peak(100.0, "torch"))

    def call(arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["evergraft", "bench", *arguments.split()])
        with pytest.raises(SystemExit) as left:
            cli.main()
        captured = capsys.readouterr()
        return left.value.code or 0, captured.out, captured.err

    return call


@pytest.fixture
def tiny(tmp_path):
    sizes = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **sizes}))
    return "--model config.json --batch-size 2 --sequence-length 16 --vocabulary-size 128 --rounds 1 --backend dense"


LAYER = "products --tokens 8 --in 32 --out 64 --threads 1 --rounds 1 --backend dense"


def test_products_json(run):
    code, out, _ = run(f"{LAYER} --density 0.1 --block 16x16 --precision fp32 --json")
    assert code == 0
    assert out.count("\n") == 1
    result = json.loads(out)
    assert result.keys() >= {"ratio", "gflops", "peak_share", "bytes", "tier", "products", "rivals", "machine", "seed"}
    assert result["machine"]["command"][1:3] == ["bench", "products"]


def test_products_table(run):
    code, out, _ = run(f"{LAYER} --density 0.1 --density 1 --block 1x1 --block 4x4")
    assert code == 0
    assert out.count("x nn.Linear's speed") == 4
    assert "scipy has no weight_gradient: scipy has no sampled product" in out
    assert "break-even of 4x4" in out


def test_products_files(run, tmp_path):
    assert run(f"{LAYER} --rivals dense --plot even.html --output . --json")[0] == 0
    assert run(f"{LAYER} --rivals dense --output . --json")[0] == 0
    several, one = json.loads((tmp_path / "products.json").read_text())
    assert [round(figures["density"], 2) for figures in several["results"]][-1] == 1
    assert "ratio" in one
    assert "as fast as dense" in (tmp_path / "even.html").read_text()


def test_step(run, tiny):
    result = json.loads(run(f"step {tiny} --density 0.2 --block 4x4 --json")[1])
    assert result.keys() >= {"ratio", "ratio_best_dense", "ratio_stock", "tokens_per_second", "tier", "machine"}
    out = run(f"step {tiny} --block 4x4 --rivals dense")[1]
    assert "lean dense fp32" in out
    assert "the largest topology update takes" in out


def test_profile(run, tiny, tmp_path):
    out = run(f"profile {tiny} --block 4x4 --output .")[1]
    assert "MLM head" in out
    assert profile.OTHER in out
    assert json.loads((tmp_path / "profile.json").read_text())[0]["steps"]


BAD = [
    ("products --tokens 0", "Input should be greater than or equal to 1"),
    ("products --in 0", "Input should be greater than or equal to 1"),
    ("products --threads 0", "Input should be greater than or equal to 1"),
    ("products --rounds 0", "Input should be greater than or equal to 1"),
    ("products --seed -1", "Input should be greater than or equal to 0"),
    ("products --density 0", "density must be above 0 and at most 1"),
    ("products --density 2", "density must be above 0 and at most 1"),
    ("products --block 7x7", "block 7x7 does not divide"),
    ("products --block wide", "block must be ROWSxCOLUMNS"),
    ("products --precision fp8", "--precision must be fp32 or bf16; got fp8"),
    ("products --device tpu", "--device must be cpu or cuda; got tpu"),
    ("products --device cuda", "torch sees no GPU"),
    ("products --backend quick", "no backend is called 'quick'"),
    ("products --rivals some", "--rivals must be all or dense; got some"),
    ("products --plot .", "--plot . is a folder; name the file to write"),
    ("products --seed 4294967296", "Input should be less than or equal to 4294967295"),
    ("products --threads 100000", "Input should be less than or equal to 1024"),
    ("profile --vocabulary-size 768", "--vocabulary-size 768 equals the hidden size"),
    ("products --plot none/chart.html", "--plot none/chart.html: the folder none does not exist"),
    ("products --output none/file.json", "--output none/file.json: the folder none does not exist"),
    ("step --model giant", "model 'giant' is neither one of"),
    ("step --block 7x7", "block 7x7 does not divide"),
    ("step --precision fp8", "--precision must be fp32 or bf16; got fp8"),
    ("step --rivals some", "--rivals must be all or dense; got some"),
    ("step --batch-size 0", "Input should be greater than or equal to 1"),
    ("profile --model giant", "model 'giant' is neither one of"),
    ("profile --density 0", "--density: Input should be greater than 0; got 0.0"),
    ("profile --rivals none", "--rivals must be all or dense"),
]


def test_a_foreign_file_is_found_before_measuring(run, tmp_path):
    (tmp_path / "notes.json").write_text("{}")
    code, _, err = run(f"{LAYER} --output notes.json")
    assert code == 2
    assert "notes.json holds no JSON array of results; choose another file" in err
    assert (tmp_path / "notes.json").read_text() == "{}"


@pytest.mark.parametrize(("arguments", "sentence"), BAD, ids=[arguments for arguments, _ in BAD])
def test_bad_input(run, tmp_path, arguments, sentence):
    code, out, err = run(arguments)
    assert (code, out) == (2, "")
    assert sentence in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())
