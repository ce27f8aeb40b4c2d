"""Whole runs: what they write, that they repeat, and that they resume bit for bit whatever stopped them."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import TrainerCallback

from evergraft import EvergraftError
from evergraft.bert.model import SparseBertForPreTraining
from evergraft.bert.pairs import SentencePairs
from evergraft.corpus import prepare
from evergraft.files.folders import locked
from evergraft.runs import folder as run_module
from evergraft.runs.folder import Run
from evergraft.runs.recipe import Recipe
from evergraft.training.budget import Budget
from evergraft.training.evaluate import evaluate
from evergraft.training.pretrain import Interrupted, pretrain, resume
from evergraft.training.progress import ProgressBar
from tests.conftest import prose
from tests.kernels.comparison import differences, metrics

RESULT_KEYS = {
    "run", "steps", "tokens", "seconds", "flops_total", "density", "validation_mlm_loss", "validation_nsp_loss",
    "unigram_entropy", "explored", "removed_new_ratio", "bytes", "bytes_dense", "flops_per_sequence",
}  # fmt: skip


def test_the_folder(finished):
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "recipe.yaml",
        "environment.json",
        "metrics.jsonl",
        "topology.jsonl",
        "checkpoint-10",
        "checkpoint-20",
        "checkpoint-24",
        "model",
        "tensorboard",
        "result.json",
    }
    files = {path.suffix for path in finished.rglob("*") if path.is_file() and path.parent.name != "tensorboard"}
    assert files <= {".yaml", ".json", ".jsonl", ".safetensors"}  # nothing that needs unpickling
    assert list((finished / "tensorboard").iterdir())
    recipe = Recipe.model_validate(yaml.safe_load((finished / "recipe.yaml").read_text()))
    assert (recipe.steps, recipe.block, recipe.updates, recipe.learning_rate) == (24, (4, 4), 6, 1e-3)
    assert {"command", "commit", "processor", "versions", "threads"} <= json.loads(
        (finished / "environment.json").read_text()
    ).keys()


def test_the_result(finished):
    result = json.loads((finished / "result.json").read_text())
    assert result.keys() >= RESULT_KEYS
    assert (result["steps"], result["tokens"]) == (24, 24 * 8 * 32)
    assert result["density"] == 0.25
    assert result["flops_total"] == 24 * 8 * result["flops_per_sequence"]
    assert result["bytes"]["weights"] < 0.3 * result["bytes_dense"]["weights"]
    assert result["validation_mlm_loss"] < result["untrained_validation_mlm_loss"]
    assert 0.25 < result["explored"] <= 1
    assert 0 <= result["removed_new_ratio"] <= 1


def test_metrics_are_exactly_as_scheduled(finished):
    lines = [line for line in metrics(finished) if "loss" in line]
    assert [line["step"] for line in lines] == [4, 8, 12, 16, 20, 24]
    for line in lines:
        progress = (line["step"] - 1) / 24  # the rate of the step just taken
        factor = progress / 0.1 if progress < 0.1 else (1 - progress) / 0.9
        assert line["learning_rate"] == pytest.approx(1e-3 * factor, rel=1e-12)
        assert line["tokens"] == line["step"] * 256
        assert line["loss"] == pytest.approx(line["mlm_loss"] + line["nsp_loss"])
    validations = [line for line in metrics(finished) if "validation_mlm_loss" in line]
    assert [line["step"] for line in validations] == [0, 24]


def test_topology_log(finished):
    lines = [json.loads(line) for line in (finished / "topology.jsonl").read_text().splitlines()]
    assert sorted({line["step"] for line in lines}) == [2, 6, 10, 14, 18, 22]  # (k + 1/2) 24 / 6
    for number in range(1, 7):
        *update, overall = [line for line in lines if line["update"] == number]
        assert len(update) == 12
        assert overall["layer"] == "all"
        assert overall["pruned"] == overall["grown"] == sum(line["pruned"] for line in update)
        assert overall["explored"] == pytest.approx(  # each layer by its blocks: four 4 x 4 of 8 x 8, two of 16 x 8
            sum(line["explored"] * (2 if active_of(line) == 32 else 1) for line in update) / 16
        )
        assert (overall["removed_new_ratio"] is None) == (number == 1)
        ratio = 0.25 * (1 + math.cos(math.pi * update[0]["step"] / 24))
        for line in update:
            assert line["pruned"] == line["grown"] == round(ratio * active_of(line))


def active_of(line):
    """Active blocks of 4 x 4 at density 0.25 in the line's layer: a feed-forward 64 x 32, or 32 x 32."""
    attention = "attention" in line["layer"]
    return 16 if attention else 32


def test_a_seed_repeats_and_another_differs(finished, small_recipe, tmp_path):
    pretrain(small_recipe(), tmp_path / "same")
    pretrain(small_recipe(seed=1), tmp_path / "other")
    assert differences(finished, tmp_path / "same") == []
    assert len(differences(finished, tmp_path / "other")) > 50


def test_static_and_dense_baselines(small_recipe, tmp_path):
    static = pretrain(small_recipe(updates=0, steps=6), tmp_path / "static")
    dense = pretrain(small_recipe(density=1, steps=6), tmp_path / "dense")
    assert static["explored"] == static["density"] == 0.25
    assert static["removed_new_ratio"] is None
    assert not (tmp_path / "static" / "topology.jsonl").exists()
    assert dense["density"] == 1
    assert dense["explored"] is None
    assert dense["bytes"] == dense["bytes_dense"]


def test_accumulation_is_the_same_step(small_recipe, tmp_path):
    whole = pretrain(small_recipe(dropout=0, steps=4, updates=1), tmp_path / "whole")
    parts = pretrain(small_recipe(dropout=0, steps=4, updates=1, accumulate=4), tmp_path / "parts")
    assert parts["validation_mlm_loss"] == pytest.approx(whole["validation_mlm_loss"], rel=1e-5)
    norms = [
        next(line["gradient_norm"] for line in metrics(tmp_path / name) if "loss" in line)
        for name in ("whole", "parts")
    ]
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)


def test_bf16(small_recipe, tmp_path):
    result = pretrain(small_recipe(precision="bf16", steps=6, updates=2), tmp_path / "run")
    assert math.isfinite(result["validation_mlm_loss"])
    assert load_file(tmp_path / "run/model/model.safetensors")["bert.pooler.dense.weight"].dtype == torch.float32


def test_the_clock_is_a_budget(small_recipe, tmp_path, monkeypatch):
    """By a clock that moves ten milliseconds whenever it is asked."""
    clock = itertools.count()
    monkeypatch.setattr("evergraft.training.budget.time", SimpleNamespace(monotonic=lambda: next(clock) / 100))
    result = pretrain(small_recipe(steps=None, minutes=0.03), tmp_path / "run")
    assert 1.8 <= result["seconds"] < 2
    rates = [line["learning_rate"] for line in metrics(tmp_path / "run") if "loss" in line]
    assert max(rates) > rates[-1]
    assert json.loads((tmp_path / "run" / "topology.jsonl").read_text().splitlines()[-1])["update"] >= 5


def test_group_lasso_shrinks_weights(finished, small_recipe, tmp_path):
    pretrain(small_recipe(group_lasso=30.0), tmp_path / "run")
    name = "bert.encoder.layer.0.output.dense.values"
    small, usual = (
        load_file(run / "model/model.safetensors")[name].abs().mean() for run in (tmp_path / "run", finished)
    )
    assert small < 0.8 * usual


class At(TrainerCallback):
    """Does something after one step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == self.step:
            self.action(model)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_run_resumes_exactly(finished, small_recipe, tmp_path, number):
    run = tmp_path / "run"
    with pytest.raises(Interrupted, match=f"evergraft pretrain --resume {run}") as stopped:
        pretrain(small_recipe(), run, callbacks=[At(13, lambda model: signal.raise_signal(number))])
    assert stopped.value.signal_number == number
    assert (run / "checkpoint-14").exists() or (run / "checkpoint-13").exists()
    resume(run)
    assert differences(finished, run) == []
    assert resume(run)["steps"] == 24  # of a finished run: its result, at once


def test_a_run_stopped_before_its_first_checkpoint_starts_again(finished, small_recipe, tmp_path):
    def crash(model):
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        pretrain(small_recipe(), tmp_path / "run", callbacks=[At(5, crash)])
    resume(tmp_path / "run")
    assert differences(finished, tmp_path / "run") == []


def cut(small_recipe, folder: Path, step: int = 23) -> Path:
    """A run that stopped after checkpoints 10 and 20."""

    def crash(model):
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        pretrain(small_recipe(), folder, callbacks=[At(step, crash)])
    return folder


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "manifest.json", "progress.json", "topology.safetensors"]
)
@pytest.mark.parametrize("damage", ["truncated", "removed"])
def test_a_torn_checkpoint_is_refused_and_the_one_before_offered(finished, cut_run, tmp_path, name, damage):
    run = tmp_path / "run"
    shutil.copytree(cut_run, run)
    file = run / "checkpoint-20" / name
    if damage == "removed":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(EvergraftError) as refused:
        resume(run)
    assert str(run / "checkpoint-20") in str(refused.value)
    assert name in str(refused.value)
    assert str(refused.value).endswith(f"resume from the one before it with --resume {run / 'checkpoint-10'}")


@pytest.fixture(scope="module")
def cut_run(small_recipe, tmp_path_factory):
    return cut(small_recipe, tmp_path_factory.mktemp("cut") / "run")


def test_resuming_from_the_one_before(finished, cut_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(cut_run, run)
    (run / "checkpoint-20" / "model.safetensors").write_bytes(b"torn")
    resume(run / "checkpoint-10")
    assert differences(finished, run) == []


def test_checkpoints_beyond_an_older_one_go_with_the_first_new_one(finished, cut_run, small_recipe, tmp_path):
    """Else the next resume would take one of them, and the metrics between would be lacking."""
    run = tmp_path / "run"
    shutil.copytree(cut_run, run)
    with pytest.raises(Interrupted):
        resume(run / "checkpoint-10", callbacks=[At(13, lambda model: signal.raise_signal(signal.SIGTERM))])
    assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-10", "checkpoint-14"]
    resume(run)
    assert differences(finished, run) == []


def test_a_torn_checkpoint_offers_one_before_it(cut_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(cut_run, run)
    (run / "checkpoint-10" / "progress.json").unlink()
    with pytest.raises(EvergraftError, match=r"checkpoint-10 is torn: progress\.json is missing; start the run anew"):
        resume(run / "checkpoint-10")


def test_one_process_at_a_time(cut_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(cut_run, run)
    with locked(run), pytest.raises(EvergraftError, match=r"another process is at .*; wait until it ends, or stop it"):
        resume(run)
    assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-10", "checkpoint-20"]


def test_a_run_goes_on_on_the_kind_of_device_it_began_on(cut_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(cut_run, run)
    facts = json.loads((run / "environment.json").read_text())
    assert facts["device"] == "cpu"
    (run / "environment.json").write_text(json.dumps(facts | {"device": "cuda"}))
    with pytest.raises(EvergraftError, match="was begun on cuda, and would go on on cpu: resume it where cuda is"):
        resume(run)


def test_inputs_without_a_masked_token_are_no_divergence(small_recipe, tmp_path, monkeypatch):
    """Which short ones may be, one at a time."""
    forward = SparseBertForPreTraining.forward

    def unmasked(self, *, labels, **inputs):
        return forward(self, labels=torch.full_like(labels, -100) if self.training else labels, **inputs)

    monkeypatch.setattr(SparseBertForPreTraining, "forward", unmasked)
    result = pretrain(small_recipe(steps=2, updates=1, log_every=1), tmp_path / "run")
    assert math.isfinite(result["validation_mlm_loss"])
    assert [line["mlm_loss"] for line in metrics(tmp_path / "run") if "mlm_loss" in line] == [0, 0]


def test_a_foreign_checkpoint_is_refused(cut_run, small_recipe, tmp_path):
    other = cut(lambda: small_recipe(seed=5), tmp_path / "other")
    run = tmp_path / "run"
    shutil.copytree(cut_run, run)
    shutil.rmtree(run / "checkpoint-20")
    shutil.copytree(other / "checkpoint-20", run / "checkpoint-20")
    with pytest.raises(EvergraftError, match="is foreign: it belongs to another run"):
        resume(run)


def test_changed_text_is_refused(small_recipe, tmp_path, text_file, monkeypatch):
    monkeypatch.setenv("EVERGRAFT_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "text.txt"
    shutil.copy(text_file, text)
    recipe = small_recipe().model_copy(update={"corpus": [str(text)], "vocabulary_size": 200})
    run = cut(lambda: recipe, tmp_path / "run")
    shutil.rmtree(tmp_path / "cache")
    text.write_text(text.read_text().replace("cat", "cow"))
    with pytest.raises(EvergraftError, match="has changed since"):
        resume(run)


def test_a_run_knows_its_model_and_corpus_from_anywhere(finished, small_recipe, tmp_path, monkeypatch, corpus):
    """Named by relative paths, and resumed from another folder; a changed configuration is refused."""
    config = tmp_path / "bert.json"
    shutil.copy(small_recipe().model, config)
    shutil.copytree(corpus.path, tmp_path / "text")
    monkeypatch.chdir(tmp_path)
    run = cut(lambda: small_recipe().model_copy(update={"model": "bert.json", "corpus": ["text"]}), tmp_path / "run")
    monkeypatch.chdir("/")
    content = config.read_text()
    config.write_text(content.replace("64", "128"))
    with pytest.raises(EvergraftError, match=f"the model {config} has changed since"):
        resume(run)
    config.write_text(content)
    resume(run)
    assert differences(finished, run) == []


def test_a_damaged_model_is_written_again(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "model" / "tokenizer.json").unlink()
    with pytest.raises(EvergraftError, match=r"tokenizer.json is missing; remove .*result.json and have it written"):
        _ = Run.open(run).model_folder
    (run / "result.json").unlink()
    result, expected = resume(run), json.loads((finished / "result.json").read_text())
    assert {**result, "run": "", "seconds": 0} == {**expected, "run": "", "seconds": 0}
    assert differences(finished, run) == []
    Run.open(run).model_folder.joinpath("tokenizer.json").stat()


def test_divergence_is_told_and_nothing_bad_is_saved(small_recipe, tmp_path):
    def poison(model):
        model.bert.embeddings.word_embeddings.weight.data.fill_(float("nan"))

    with pytest.raises(
        EvergraftError, match="the loss is nan at step 12: training has diverged; lower --learning-rate"
    ):
        pretrain(small_recipe(), tmp_path / "run", callbacks=[At(11, poison)])
    with pytest.raises(EvergraftError, match="a weight is not finite at step 10"):
        pretrain(small_recipe(log_every=100), tmp_path / "unlogged", callbacks=[At(7, poison)])
    assert not list((tmp_path / "unlogged").glob("checkpoint-*"))


def test_a_full_disk_while_saving_leaves_the_last_checkpoint(finished, small_recipe, tmp_path, monkeypatch):
    from evergraft.runs import checkpoint

    save = checkpoint.save_training_state

    def full(folder, *rest):
        save(folder, *rest)
        if "20" in folder.name:
            raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr(checkpoint, "save_training_state", full)
    with pytest.raises(EvergraftError, match=r"No space left on device; put that right, and go on with: .*run"):
        pretrain(small_recipe(), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-10"]
    monkeypatch.undo()
    resume(tmp_path / "run")
    assert differences(finished, tmp_path / "run") == []


DRIVER = """
import sys, time
from pathlib import Path
from evergraft.evolution.updater import TopologyUpdater
from evergraft.runs import checkpoint
from evergraft.runs.recipe import load_recipe
from evergraft.training.pretrain import pretrain, resume

def waits(function, mark):
    calls = 0
    def call(*arguments):
        nonlocal calls
        calls += 1
        result = function(*arguments)
        if [mark, str(calls)] == sys.argv[3:]:
            print("here", flush=True)
            time.sleep(600)  # the kill comes here, in the middle
        return result
    return call

checkpoint.save_training_state = waits(checkpoint.save_training_state, "saving")
checkpoint.write_checkpoint = waits(checkpoint.write_checkpoint, "saved")
TopologyUpdater._update_layer = waits(TopologyUpdater._update_layer, "updating")
if sys.argv[3] == "training":
    print("here", flush=True)
run = Path(sys.argv[1])
if (run / "recipe.yaml").exists():
    resume(run)
else:
    pretrain(load_recipe(Path(sys.argv[2]), {}), run)
"""


def killed(run: Path, recipe: Path, mark: str, call: int = 1, delay: float = 0.0) -> bool:
    """Run or resume, and SIGKILL it inside (`saved`: after) that call of what `mark` names; False if it ended before.

    With the mark `training`, it is killed `delay` seconds after its start.
    """
    command = [sys.executable, "-c", DRIVER, str(run), str(recipe), mark, str(call)]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        if process.stdout.readline():
            time.sleep(delay)
            process.kill()
    return process.returncode == -signal.SIGKILL


def test_sigkill_inside_a_save_inside_an_update_and_at_random(finished, small_recipe, tmp_path):
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(small_recipe().to_yaml())
    assert killed(run, recipe, "updating", 7)  # seven of the twelve layers have changed
    assert killed(run, recipe, "saving")
    assert not list(run.glob("checkpoint-??"))
    assert killed(run, recipe, "saved")
    assert [path.name for path in run.glob("checkpoint-??")] == ["checkpoint-10"]
    assert killed(run, recipe, "updating", 20)
    killed(run, recipe, "training", delay=random.Random(0).uniform(0.2, 2.0))
    resume(run)
    assert differences(finished, run) == []


@pytest.mark.slow
def test_sigkill_at_many_random_moments(finished, small_recipe, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(small_recipe().to_yaml())
    rng = random.Random(1)
    for number in range(10):
        run = tmp_path / f"run{number}"
        for _ in range(rng.randint(1, 4)):
            mark, call = rng.choice([("updating", 72), ("saving", 3), ("saved", 3), ("training", 1)])
            killed(run, recipe, mark, rng.randint(1, call), rng.uniform(0, 6.0) if mark == "training" else 0)
        resume(run)
        assert differences(finished, run) == []


def test_signals_from_outside_the_main_thread_are_no_trouble(small_recipe, tmp_path):
    """Library users may train in a thread, where Python lets nobody set signal handlers."""
    result = []
    thread = threading.Thread(
        target=lambda: result.append(pretrain(small_recipe(steps=3, updates=1), tmp_path / "run"))
    )
    thread.start()
    thread.join()
    assert result[0]["steps"] == 3


def test_a_run_goes_on_with_the_threads_it_began_with(cut_run, tmp_path):
    run, before = tmp_path / "run", torch.get_num_threads()
    shutil.copytree(cut_run, run)
    environment = json.loads((run / "environment.json").read_text())
    assert environment["threads"] == before
    (run / "environment.json").write_text(json.dumps({**environment, "threads": before + 1}))
    try:
        resume(run)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_both_dropouts_of_a_configuration_are_kept(small_recipe, tmp_path):
    config = json.loads(Path(small_recipe().model).read_text())
    (tmp_path / "bert.json").write_text(
        json.dumps({**config, "hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.0})
    )
    recipe = small_recipe(dropout=None, steps=2, updates=1).model_copy(update={"model": str(tmp_path / "bert.json")})
    pretrain(recipe, tmp_path / "run")
    written = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert (written["hidden_dropout_prob"], written["attention_probs_dropout_prob"]) == (0.2, 0.0)


def test_a_recipe_records_the_vocabulary_of_its_corpus(finished, corpus):
    assert Run.open(finished).recipe.vocabulary_size == corpus.vocabulary_size


def test_a_run_on_fewer_pieces_than_are_ever_learnt_can_be_read_again(small_recipe, corpus, tmp_path):
    """A given vocabulary may be as small as it likes: 30 pieces here."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxy"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces))
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(" ".join(pieces[5 + number :] * 4) for number in range(10)))
    few = prepare([str(text)], tmp_path / "corpus", tokenizer=tmp_path / "vocab.txt", sequence_length=16)
    recipe = small_recipe(sequence_length=16, steps=2, updates=1).model_copy(update={"corpus": [str(few.path)]})
    pretrain(recipe, tmp_path / "run")
    assert Run.open(tmp_path / "run").recipe.vocabulary_size == 30


def test_text_that_is_left_out_is_told(small_recipe, tmp_path):
    text = "\n\n".join(document if number % 3 else document[:300] for number, document in enumerate(prose(30)))
    (tmp_path / "text.txt").write_text(text)
    corpus = prepare(
        [str(tmp_path / "text.txt")],
        tmp_path / "corpus",
        vocabulary_size=200,
        sequence_length=16,
        validation_fraction=0.3,
    )
    pairs = SentencePairs(corpus, corpus.train, 128)
    assert 0 < pairs.left_out[0] < 10
    recipe = small_recipe(sequence_length=128, steps=2, updates=1).model_copy(update={"corpus": [str(corpus.path)]})
    with pytest.warns(UserWarning, match=rf"^{pairs.left_out[0]} of \d+ training documents, {pairs.left_out[1]:,} tok"):
        pretrain(recipe, tmp_path / "run")


def test_evaluation_on_changed_text_is_refused(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**environment, "corpus_identity": "other"}))
    with pytest.raises(EvergraftError, match=r"has changed since .* resumed or evaluated on"):
        evaluate(run)


def test_a_commit_is_that_of_the_sources(tmp_path, monkeypatch):
    source = tmp_path / "run.py"
    source.touch()
    monkeypatch.setattr(run_module, "__file__", str(source))
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "of another project"], check=True)
    assert run_module.environment()["commit"] is None
    subprocess.run([*git, "add", "run.py"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "of this one"], check=True)
    assert len(run_module.environment()["commit"]) == 40


def test_the_terminal_is_given_back_whatever_happens():
    bar = ProgressBar(Budget(10, None))

    def fail():
        with bar.shown():
            bar.on_train_begin(None, SimpleNamespace(global_step=0), None)
            assert bar.bar.live.is_started
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not bar.bar.live.is_started
