"""The command line: JSON, exit codes, and one clear sentence for everything that can be wrong."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertForPreTraining, pipeline

from evergraft.bert.model import SparseBertForPreTraining


@pytest.fixture
def recipe_file(small_recipe, tmp_path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(small_recipe(steps=6, updates=2).to_yaml())
    return path


def test_pretrain_json(run, recipe_file, tmp_path):
    code, out, _ = run("pretrain", "--recipe", recipe_file, "--output", tmp_path / "run", "--steps", 5, "--json")
    assert code == 0
    assert out.count("\n") == 1
    result = json.loads(out)
    assert result["steps"] == 5
    assert result["run"] == str(tmp_path / "run")
    code, out, _ = run("pretrain", "--resume", tmp_path / "run", "--json")
    assert json.loads(out) == result


def test_pretrain_summary(run, recipe_file, tmp_path):
    code, out, err = run("pretrain", "--recipe", recipe_file, "--output", tmp_path / "run")
    assert code == 0
    assert "unigram entropy" in out
    assert "its dense twin" in out
    assert str(tmp_path / "run") in out.replace("\n", "")
    assert "tokens/s" in err


def test_evaluate(run, finished, text_file):
    expected = json.loads((finished / "result.json").read_text())
    code, out, _ = run("evaluate", finished, "--json")
    own = json.loads(out)
    assert code == 0
    assert own.keys() >= {"mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy"}
    assert own["mlm_loss"] == pytest.approx(expected["validation_mlm_loss"], rel=0.05)  # all windows, not sixteen
    code, out, _ = run("evaluate", finished, "--corpus", text_file, "--json")
    assert json.loads(out)["sequences"] > own["sequences"]
    assert "mlm_loss: " in run("evaluate", finished)[1]


def test_export_loads_in_plain_transformers(run, finished, tmp_path):
    code, out, _ = run("export", finished, tmp_path / "bert", "--json")
    assert code == 0
    assert json.loads(out)["directory"] == str(tmp_path / "bert")
    dense = BertForPreTraining.from_pretrained(tmp_path / "bert").eval()
    sparse = SparseBertForPreTraining.from_pretrained(finished / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "bert")
    inputs = tokenizer("The cat [MASK] the house.", "My old teacher.", return_tensors="pt")
    for got, want in zip(dense(**inputs).to_tuple(), sparse(**inputs).to_tuple(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    config = json.loads((tmp_path / "bert" / "config.json").read_text())
    assert config["model_type"] == "bert"
    assert config["architectures"] == ["BertForPreTraining"]
    assert "density" not in config
    assert "values" not in " ".join(load_file(tmp_path / "bert" / "model.safetensors"))
    card = (tmp_path / "bert" / "README.md").read_text()
    assert "pre-trained always-sparse" in card
    assert "25.00% of their 4x4 blocks" in card
    assert json.loads((tmp_path / "bert" / "tokenizer_config.json").read_text())["tokenizer_class"] == (
        "PreTrainedTokenizerFast"  # which transformers 4 knows too
    )
    longer = tokenizer("The cat watches the house. " * 50, truncation=True, return_tensors="pt")
    assert dense(**longer).prediction_logits.shape[1] == config["max_position_embeddings"] == 32
    fill = pipeline("fill-mask", model=str(tmp_path / "bert"))
    assert len(fill("The cat [MASK] the house.")) == 5


def test_flops(run):
    code, out, _ = run("flops", "--model", "small", "--density", 1, "--json")
    assert code == 0
    assert json.loads(out)["flops_per_sequence"] == pytest.approx(10.07e9, rel=5e-4)
    figures = json.loads(run("flops", "--model", "medium", "--density", 0.1, "--json")[1])
    assert figures["flops_per_sequence"] == pytest.approx(2.738e9, rel=5e-4)
    assert figures["bytes"].keys() >= {"weights", "gradients", "optimizer"}
    longer = json.loads(run("flops", "--model", "medium", "--sequence-length", 512, "--sequences", 10, "--json")[1])
    assert longer["flops_total"] == 10 * longer["flops_per_sequence"]


def test_corpus_prepare(run, text_file, tmp_path):
    arguments = ("--vocabulary-size", 200, "--sequence-length", 32)
    code, out, _ = run("corpus", "prepare", text_file, "--output", tmp_path / "corpus", *arguments, "--json")
    assert code == 0
    assert json.loads(out)["splits"]["train"]["documents"] > 30
    piped = subprocess.run(
        [
            sys.executable,
            "-m",
            "evergraft",
            "corpus",
            "prepare",
            "-",
            "--output",
            tmp_path / "piped",
            *map(str, arguments),
        ],
        stdin=text_file.open("rb"),
        capture_output=True,
    )
    assert piped.returncode == 0
    for name in ("tokenizer.json", "train/tokens.bin"):
        assert (tmp_path / "corpus" / name).read_bytes() == (tmp_path / "piped" / name).read_bytes()


def test_a_signal_exits_as_signals_do_and_says_how_to_go_on(small_recipe, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(small_recipe(steps=5000, updates=2).to_yaml())
    command = [sys.executable, "-m", "evergraft", "pretrain", "--recipe", recipe, "--output", tmp_path / "run"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "checkpoint-10").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert out == ""
    assert f"stopped and saved; continue with: evergraft pretrain --resume {tmp_path / 'run'}" in err.replace("\n", "")


def test_ctrl_c_says_stopped(tmp_path):
    command = [sys.executable, "-m", "evergraft", "corpus", "prepare", "-", "--output", tmp_path / "new"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:  # it waits for text
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith("stopped\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("arguments", "command"), [([], "pretrain"), (["study"], "status")])
def test_help_needs_nothing_heavy(arguments, command):
    code = (
        f"import sys; sys.argv = {['evergraft', *arguments, '--help']}\n"
        "from evergraft import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pyarrow', 'tokenizers', 'numpy', 'plotly', 'scipy', 'sklearn'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert command in done.stdout


def test_no_command_shows_the_help_and_no_error(run):
    code, out, err = run()
    assert code == 2
    assert "pretrain" in out + err
    assert "error" not in err


def test_version(run):
    assert run("--version")[1].strip()[0].isdigit()


# Bad input: the arguments, and a part of the sentence they get. {names} are made by the fixture `places`.
BAD = [
    ("pretrain --steps 10 --minutes 1", "the run's length must be given once, as steps, tokens or minutes; got steps, minutes"),
    ("pretrain", "the run's length must be given once, as steps, tokens or minutes; got none"),
    ("pretrain --steps 0", "--steps: Input should be greater than or equal to 1; got 0"),
    ("pretrain --steps 100000000000000000000000", "--steps: Input should be less than or equal to 1000000000; got"),
    ("pretrain --tokens 1000000000000000000000", "--tokens: Input should be less than or equal to 1000000000000000; got"),
    ("pretrain --tokens -5", "--tokens: Input should be greater than or equal to 1; got -5"),
    ("pretrain --minutes 0", "--minutes: Input should be greater than 0; got 0.0"),
    ("pretrain --steps many", "Invalid value for '--steps': Input should be a valid integer"),
    ("pretrain --minutes inf", "--minutes: Input should be a finite number; got inf"),
    ("pretrain --steps 10 --density 0", "--density: Input should be greater than 0; got 0.0"),
    ("pretrain --steps 10 --density 1.2", "--density: Input should be less than or equal to 1; got 1.2"),
    ("pretrain --steps 10 --density nan", "--density: Input should be"),
    ("pretrain --steps 10 --block 16y16", "--block: block must be ROWSxCOLUMNS"),
    ("pretrain --steps 10 --block 0x4", "--block: block must be ROWSxCOLUMNS"),
    ("pretrain --steps 10 --updates 0 --corpus {corpus} --sequence-length 32 --block 5x5 --output {new}", "block 5x5 does not divide a weight of"),
    ("pretrain --steps 10 --updates -1", "--updates: Input should be greater than or equal to 0; got -1"),
    ("pretrain --steps 10 --updates 6", "6 updates in 10 steps leave less than two steps to each; give updates of at most 5"),
    ("pretrain --steps 10 --prune-ratio 2", "--prune-ratio: Input should be less than or equal to 1; got 2.0"),
    ("pretrain --steps 10 --prune-by l7", "--prune-by: Input should be 'l1', 'l2', 'linf' or 'random'; got 'l7'"),
    ("pretrain --steps 10 --prune-decay fast", "--prune-decay: Input should be 'cosine', 'linear' or 'constant'; got 'fast'"),
    ("pretrain --steps 10 --group-lasso -1", "--group-lasso: Input should be greater than or equal to 0"),
    ("pretrain --steps 10 --batch-size 0", "--batch-size: Input should be greater than or equal to 1; got 0"),
    ("pretrain --steps 10 --batch-size 8 --accumulate 3", "accumulate must divide batch_size; got 3 and 8"),
    ("pretrain --steps 10 --learning-rate 0", "--learning-rate: Input should be greater than 0"),
    ("pretrain --steps 10 --learning-rate 3", "--learning-rate: Input should be less than 1; got 3.0"),
    ("pretrain --steps 10 --warmup 1", "--warmup: Input should be less than 1; got 1.0"),
    ("pretrain --steps 10 --weight-decay -1", "--weight-decay: Input should be greater than or equal to 0"),
    ("pretrain --steps 10 --max-gradient-norm -1", "--max-gradient-norm: Input should be greater than or equal to 0"),
    ("pretrain --steps 10 --dropout 1", "--dropout: Input should be less than 1; got 1.0"),
    ("pretrain --steps 10 --precision fp8", "--precision: Input should be 'fp32' or 'bf16'; got 'fp8'"),
    ("pretrain --steps 10 --seed -1", "--seed: Input should be greater than or equal to 0; got -1"),
    ("pretrain --steps 10 --device tpu", "--device: Input should be 'auto', 'cpu' or 'cuda'; got 'tpu'"),
    ("pretrain --steps 10 --device cuda --corpus {corpus}", "--device cuda: torch sees no GPU on this machine"),
    ("pretrain --steps 10 --backend quick", "no backend is called 'quick'; choose one of auto, dense"),
    ("pretrain --steps 10 --sequence-length 4", "--sequence-length: Input should be greater than or equal to 8; got 4"),
    ("pretrain --steps 10 --vocabulary-size 1048577", "--vocabulary-size must be 128 to 1048576 to learn from text; got 1048577"),
    ("pretrain --steps 10 --vocabulary-size 5", "--vocabulary-size must be 128 to 1048576 to learn from text; got 5"),
    ("pretrain --steps 10 --log-every 0", "--log-every: Input should be greater than or equal to 1"),
    ("pretrain --steps 10 --keep 0", "--keep: Input should be greater than or equal to 1"),
    ("pretrain --steps 10 --save-every 0", "--save-every: Input should be greater than or equal to 1"),
    ("pretrain --steps 10 --validation-sequences 0", "--validation-sequences: Input should be greater than or equal to 1"),
    ("pretrain --steps 10 --evaluate-every 0", "--evaluate-every: Input should be greater than or equal to 1"),
    ("pretrain --steps 10 --model giant --corpus {corpus}", "model 'giant' is neither one of tiny, mini"),
    ("pretrain --steps 10 --model {gpt2} --corpus {corpus}", "configures a model of type 'gpt2'; expected 'bert'"),
    ("pretrain --steps 10 --updates 2 --model {odd_heads} --corpus {corpus} --output {new}", "no BERT can be built from this configuration (ValueError: The hidden size (33) is not a multiple"),
    ("pretrain --steps 10 --model {odd_type} --corpus {corpus}", "no BERT can be built from this configuration"),
    ("pretrain --steps 10 --model {a_list} --corpus {corpus}", "is not a configuration: expected a JSON object"),
    ("pretrain --steps 10 --corpus {missing}.txt", "does not exist; expected a text file, a glob, a folder"),
    ("pretrain --steps 10 --corpus {empty}", "holds no file to read"),
    ("pretrain --steps 10 --corpus -", "standard input must be prepared first: evergraft corpus prepare -"),
    ("pretrain --steps 10 --updates 2 --corpus {corpus} --sequence-length 32 --model {one_type} --output {new}", "type_vocab_size must be at least 2"),
    ("pretrain --steps 10 --updates 2 --corpus {corpus} --sequence-length 32 --model {chunks} --output {new}", "no BERT can be built from this configuration"),
    ("pretrain --steps 10 --updates 2 --corpus {corpus} --tokenizer {text} --output {new}", "has its own; leave --tokenizer out"),
    ("pretrain --steps 10 --corpus {corpus} --sequence-length 4096 --model tiny", "documents fill an input of 4096 tokens"),
    ("pretrain --steps 10 --corpus {text} --tokenizer {missing}", "does not exist; expected a tokenizer.json or a vocab.txt"),
    ("pretrain --steps 10 --corpus {torn}", "is torn or foreign: it holds no readable manifest.json"),
    ("pretrain --recipe {missing}", "does not exist; expected a YAML file of recipe fields"),
    ("pretrain --recipe {not_yaml}", "is not YAML"),
    ("pretrain --recipe {a_list}", "must hold `field: value` lines; got list"),
    ("pretrain --recipe {unknown_field}", "densty: no such field; a recipe has model, corpus"),
    ("pretrain --recipe {bad_value}", "density: Input should be less than or equal to 1; got 7"),
    ("pretrain --steps 10 --updates 2 --corpus {corpus} --output {finished}", "exists already; choose another --output"),
    ("pretrain --steps 10 --updates 2 --corpus {corpus} --output {text}", "exists already; choose another --output"),
    ("pretrain --resume {missing}", "is not a run's folder: it holds no recipe.yaml"),
    ("pretrain --resume {finished}/checkpoint-7", "checkpoint-7 does not exist; resume from the run"),
    ("pretrain --resume {finished} --steps 50 --density 0.5", "--resume goes on with the run's own recipe; drop --"),
    ("pretrain --no-such-flag 1", "No such option"),
    ("evaluate {missing}", "is not a run's folder"),
    ("evaluate {unfinished}", "holds no finished model; finish the run with --resume"),
    ("evaluate {damaged}", "model is torn: model.safetensors has 99 bytes, expected"),
    ("export {damaged} {new}", "have it written again with: evergraft pretrain --resume {damaged}"),
    ("pretrain --resume {no_metrics}", "metrics.jsonl is missing or torn: it lacks the validation before the first step"),
    ("export {no_result} {new}", "has not finished; finish it with: evergraft pretrain --resume"),
    ("evaluate {no_manifest}", "is torn or foreign: it holds no readable manifest.json; remove"),
    ("pretrain --resume {damaged}", "result.json is torn; remove {damaged}/result.json"),
    ("evaluate {finished} --corpus {missing}.txt", "does not exist; expected a text file"),
    ("evaluate {finished} --corpus {short}", "too few for one input of 32"),
    ("evaluate {finished} --corpus {other_corpus}", "has another vocabulary than"),
    ("evaluate {finished} --batch-size 0", "Input should be greater than or equal to 1"),
    ("evaluate {finished} --device tpu", "--device must be auto, cpu or cuda; got tpu"),
    ("evaluate {finished} --device cuda", "--device cuda: torch sees no GPU on this machine"),
    ("export {missing} {new}", "is not a run's folder"),
    ("export {finished} {empty}", "exists already; choose a new folder to export to"),
    ("export {unfinished} {new}", "holds no finished model"),
    ("corpus prepare {missing}.txt --output {new}", "does not exist; expected a text file"),
    ("corpus prepare {text} --output {corpus}", "exists already; choose a new folder for the corpus"),
    ("corpus prepare {text} --output {new} --vocabulary-size 100", "--vocabulary-size must be 128 to 1048576 to learn"),
    ("corpus prepare {text} --output {new} --vocabulary-size 1048577", "--vocabulary-size must be 128 to 1048576 to learn from text; got 1048577"),
    ("corpus prepare - - --output {new}", "standard input can be read once"),
    ("corpus prepare {short} --output {new}", "too few for one input of 128"),
    ("corpus prepare {void} --output {new}", "the text holds no words to learn a vocabulary from"),
    ("corpus prepare {void} --output {new} --tokenizer {corpus}", "the text has 0 tokens, too few for one input of 128"),
    ("corpus prepare", "Missing argument 'sources'"),
    ("corpus prepare {text}", "Missing option '--output'"),
    ("corpus prepare {text} --output {new} --tokenizer {not_yaml}", "lacks [PAD], [UNK], [CLS], [SEP], [MASK]"),
    ("corpus prepare {text} --output {new} --sequence-length 3", "Input should be greater than or equal to 8"),
    ("corpus prepare {latin1} --output {new}", "is not UTF-8 at or after line"),
    ("corpus prepare {text} --output {new} --validation-fraction 2", "--validation-fraction must lie in (0, 1]; got 2.0"),
    ("corpus prepare {text} --output /proc/new", "cannot read or write"),
    ("flops --model giant", "model 'giant' is neither one of"),
    ("flops --model {negative}", "hidden_size must be at least 1; got -4"),
    ("flops --model {odd_activation}", "no BERT can be built from this configuration"),
    ("flops --density 0", "density must be above 0 and at most 1"),
    ("flops --density 0.5 --block 7x7", "block 7x7 does not divide"),
    ("flops --density 0.5 --block wide", "block must be ROWSxCOLUMNS"),
    ("flops --sequences 0", "Input should be greater than or equal to 1"),
    ("flops --sequence-length 0", "Input should be greater than or equal to 1"),
]  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory, finished, corpus, text_file):
    root = tmp_path_factory.mktemp("places")

    def file(name: str, content: str | bytes) -> Path:
        (root / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return root / name

    (root / "empty").mkdir()
    shutil.copytree(finished, root / "unfinished", ignore=shutil.ignore_patterns("model", "result.json"))
    shutil.copytree(finished, root / "damaged")
    (root / "damaged" / "result.json").write_text("{")
    shutil.copytree(finished, root / "no_metrics", ignore=shutil.ignore_patterns("model", "result.json", "metrics*"))
    shutil.copytree(finished, root / "no_result", ignore=shutil.ignore_patterns("result.json"))
    shutil.copytree(finished, root / "no_manifest")
    (root / "no_manifest" / "model" / "manifest.json").unlink()
    with (root / "damaged" / "model" / "model.safetensors").open("r+b") as weights:
        weights.truncate(99)
    shutil.copytree(corpus.path, root / "torn")
    (root / "torn" / "manifest.json").write_text("{")
    other = root / "other_corpus"
    code = ["corpus", "prepare", str(text_file), "--output", str(other), "--vocabulary-size", "150"]
    subprocess.run(
        [sys.executable, "-m", "evergraft", *code, "--sequence-length", "32"], check=True, capture_output=True
    )
    return {
        "missing": root / "missing",
        "new": root / "new",
        "empty": root / "empty",
        "unfinished": root / "unfinished",
        "torn": root / "torn",
        "damaged": root / "damaged",
        "no_metrics": root / "no_metrics",
        "no_result": root / "no_result",
        "no_manifest": root / "no_manifest",
        "other_corpus": other,
        "finished": finished,
        "corpus": corpus.path,
        "text": text_file,
        "short": file("short.txt", "Too short."),
        "latin1": file("latin1.txt", b"caf\xe9\n" * 100),
        "void": file("void.txt", ""),
        "odd_heads": file("odd_heads.json", '{"model_type": "bert", "hidden_size": 33, "num_attention_heads": 2}'),
        "odd_type": file("odd_type.json", '{"model_type": "bert", "hidden_size": "wide"}'),
        "odd_activation": file("odd_activation.json", '{"model_type": "bert", "hidden_act": "none"}'),
        "one_type": file("one_type.json", '{"model_type": "bert", "type_vocab_size": 1}'),
        "chunks": file("chunks.json", '{"model_type": "bert", "chunk_size_feed_forward": 5}'),
        "negative": file("negative.json", '{"model_type": "bert", "hidden_size": -4}'),
        "gpt2": file("gpt2.json", '{"model_type": "gpt2"}'),
        "not_yaml": file("not_yaml.yaml", "model: [tiny\nsteps"),
        "a_list": file("a_list.yaml", "- model\n"),
        "unknown_field": file("unknown.yaml", "densty: 0.1\nsteps: 10\n"),
        "bad_value": file("bad_value.yaml", "density: 7\nsteps: 10\n"),
    }


@pytest.mark.parametrize(("arguments", "sentence"), BAD, ids=[arguments for arguments, _ in BAD])
def test_bad_input(run, places, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVERGRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, out, err = run(*arguments.format(**places).split())
    assert code == 2
    assert out == ""
    assert sentence.replace("{damaged}", str(places["damaged"])) in err
    assert "Traceback" not in err
    assert not Path(places["new"]).exists()
    assert not list(tmp_path.iterdir()) or [path.name for path in tmp_path.iterdir()] == ["cache"]
