"""Bad input: one clear sentence, exit code 2, and nothing left behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from evergraft import PRUNING_RULES
from tests.conftest import names

# The arguments, and a part of the sentence they get. The fixture `places` makes what stands in braces.
BAD = [
    ("pretrain --steps 10 --minutes 1", "the run's length must be given once, as --steps, --tokens or --minutes; got steps, minutes"),
    ("pretrain", "the run's length must be given once, as --steps, --tokens or --minutes; got none"),
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
    ("pretrain --steps 10 --updates 6", "6 updates in 10 steps leave less than two steps to each; give --updates of at most 5"),
    ("pretrain --steps 10 --prune-ratio 2", "--prune-ratio: Input should be less than or equal to 1; got 2.0"),
    ("pretrain --steps 10 --prune-by l7", f"--prune-by: no pruning rule is called 'l7'; choose one of {names(PRUNING_RULES)}"),
    ("pretrain --steps 10 --prune-decay fast", "--prune-decay: Input should be 'cosine', 'linear' or 'constant'; got 'fast'"),
    ("pretrain --steps 10 --grow-by hope", "--grow-by: no growth rule is called 'hope'; choose one of"),
    ("pretrain --steps 10 --update-until 2", "--update-until: Input should be less than or equal to 1; got 2.0"),
    ("pretrain --steps 10 --allocation fair", "--allocation: no allocation is called 'fair'; choose one of"),
    ("pretrain --steps 10 --initialisation zero", "--initialisation: no initialisation is called 'zero'; choose one of"),
    ("pretrain --steps 10 --initial-std 0", "--initial-std: Input should be greater than 0; got 0.0"),
    ("pretrain --steps 10 --overrides *.attention.*", "--overrides: an override is PATTERN=DENSITY"),
    ("pretrain --steps 10 --overrides *.attention.*=7", "Input should be less than or equal to 1"),
    ("pretrain --steps 10 --group-lasso -1", "--group-lasso: Input should be greater than or equal to 0"),
    ("pretrain --steps 10 --batch-size 0", "--batch-size: Input should be greater than or equal to 1; got 0"),
    ("pretrain --steps 10 --batch-size 8 --accumulate 3", "--accumulate must divide --batch-size; got 3 and 8"),
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
    ("pretrain --steps 10 --backend quick", "--backend: no backend is called 'quick'; choose one of auto, cpu, dense, gpu"),
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
    ("pretrain --recipe {unknown_field}", "densty: no such field; Recipe has model, corpus"),
    ("pretrain --recipe {bad_value}", "density: Input should be less than or equal to 1; got 7"),
    ("pretrain --steps 10 --updates 2 --corpus {corpus} --output {finished}", "exists already; choose another --output"),
    ("pretrain --steps 10 --updates 2 --corpus {corpus} --output {text}", "exists already; choose another --output"),
    ("pretrain --resume {missing}", "is not a run's folder: it holds no recipe.yaml"),
    ("pretrain --resume {finished}/checkpoint-7", "checkpoint-7 does not exist; resume from the run"),
    ("pretrain --resume {finished} --steps 50 --density 0.5", "--resume goes on with the run's own recipe; drop --"),
    ("pretrain --no-such-flag 1", "No such option"),
    ("evaluate {missing}", "is not a run's folder"),
    ("evaluate {unfinished}", "holds no finished model; finish the run with: evergraft pretrain --resume"),
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
    ("corpus prepare - - --output {new}", "standard input can be read only once; name - once in SOURCES"),
    ("corpus prepare {short} --output {new}", "too few for one input of 128"),
    ("corpus prepare {void} --output {new}", "the text holds no words to learn a vocabulary from"),
    ("corpus prepare {void} --output {new} --tokenizer {corpus}", "the text has 0 tokens, too few for one input of 128"),
    ("corpus prepare", "Missing argument 'SOURCES'"),
    ("corpus prepare {text}", "Missing option '--output'"),
    ("corpus prepare {text} --output {new} --tokenizer {not_yaml}", "lacks [PAD], [UNK], [CLS], [SEP], [MASK]"),
    ("corpus prepare {text} --output {new} --sequence-length 3", "Input should be greater than or equal to 8"),
    ("corpus prepare {latin1} --output {new}", "is not UTF-8 at or after line"),
    ("corpus prepare {text} --output {new} --validation-fraction 2", "--validation-fraction must lie in (0, 1]; got 2.0"),
    ("corpus prepare {text} --output /proc/new", "cannot read or write"),
    ("flops --model giant", "model 'giant' is neither one of"),
    ("flops --model {negative}", "hidden_size must be at least 1; got -4"),
    ("flops --model {odd_activation}", "no BERT can be built from this configuration"),
    ("flops --density 0", "--density: Input should be greater than 0; got 0.0"),
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
