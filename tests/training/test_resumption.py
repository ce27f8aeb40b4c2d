"""Runs resume bit for bit after a signal or a power cut, and only on what they began with."""

from __future__ import annotations

import json
import shutil
import signal
import threading

import pytest
import torch

from evergraft import EvergraftError
from evergraft.files.folders import locked
from evergraft.runs.folder import Run
from evergraft.training.pretrain import Interrupted, pretrain, resume
from tests.training.comparison import differences
from tests.training.stops import At, cut


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_run_resumes_exactly(finished, small_recipe, tmp_path, number):
    run = tmp_path / "run"
    with pytest.raises(Interrupted, match=f"evergraft pretrain --resume {run}") as stopped:
        pretrain(small_recipe(), run, callbacks=[At(13, lambda model: signal.raise_signal(number))])
    assert stopped.value.signal_number == number
    assert (run / "checkpoint-14").exists() or (run / "checkpoint-13").exists()
    resume(run)
    assert differences(finished, run) == []
    assert resume(run).steps == 24  # of a finished run: its result, at once


def test_a_run_stopped_before_its_first_checkpoint_starts_again(finished, small_recipe, tmp_path):
    run = cut(small_recipe(), tmp_path / "run", step=5)
    resume(run)
    assert differences(finished, run) == []


def test_resuming_from_the_one_before(finished, cut_run):
    (cut_run / "checkpoint-20" / "model.safetensors").write_bytes(b"torn")
    resume(cut_run / "checkpoint-10")
    assert differences(finished, cut_run) == []


def test_checkpoints_beyond_an_older_one_go_with_the_first_new_one(finished, cut_run, small_recipe, tmp_path):
    """Else the next resume would take one of them, and the metrics between would be lacking."""
    with pytest.raises(Interrupted):
        resume(cut_run / "checkpoint-10", callbacks=[At(13, lambda model: signal.raise_signal(signal.SIGTERM))])
    assert sorted(path.name for path in cut_run.glob("checkpoint-*")) == ["checkpoint-10", "checkpoint-14"]
    resume(cut_run)
    assert differences(finished, cut_run) == []


def test_a_damaged_model_is_written_again(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "model" / "tokenizer.json").unlink()
    with pytest.raises(EvergraftError, match=r"tokenizer.json is missing; remove .*result.json and have it written"):
        _ = Run.open(run).model_folder
    (run / "result.json").unlink()
    result, expected = (
        result.model_copy(update={"run": "", "seconds": 0.0}) for result in (resume(run), Run.open(finished).result)
    )
    assert result == expected
    assert differences(finished, run) == []
    Run.open(run).model_folder.joinpath("tokenizer.json").stat()


def test_a_run_goes_on_with_the_threads_it_began_with(cut_run):
    before = torch.get_num_threads()
    environment = json.loads((cut_run / "environment.json").read_text())
    assert environment["threads"] == before
    (cut_run / "environment.json").write_text(json.dumps({**environment, "threads": before + 1}))
    try:
        resume(cut_run)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_a_run_goes_on_on_the_kind_of_device_it_began_on(cut_run):
    facts = json.loads((cut_run / "environment.json").read_text())
    assert facts["device"] == "cpu"
    (cut_run / "environment.json").write_text(json.dumps(facts | {"device": "cuda"}))
    with pytest.raises(EvergraftError, match="was begun on cuda, and would go on on cpu: resume it where cuda is"):
        resume(cut_run)


def test_changed_text_is_refused(small_recipe, tmp_path, text_file, monkeypatch):
    monkeypatch.setenv("EVERGRAFT_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "text.txt"
    shutil.copy(text_file, text)
    recipe = small_recipe().model_copy(update={"corpus": [str(text)], "vocabulary_size": 200})
    run = cut(recipe, tmp_path / "run")
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
    run = cut(small_recipe().model_copy(update={"model": "bert.json", "corpus": ["text"]}), tmp_path / "run")
    monkeypatch.chdir("/")
    content = config.read_text()
    config.write_text(content.replace("64", "128"))
    with pytest.raises(EvergraftError, match=f"the model {config} has changed since"):
        resume(run)
    config.write_text(content)
    resume(run)
    assert differences(finished, run) == []


def test_one_process_at_a_time(cut_run):
    with (
        locked(cut_run),
        pytest.raises(EvergraftError, match=r"another process is at .*; wait until it ends, or stop it"),
    ):
        resume(cut_run)
    assert sorted(path.name for path in cut_run.glob("checkpoint-*")) == ["checkpoint-10", "checkpoint-20"]


def test_signals_from_outside_the_main_thread_are_no_trouble(small_recipe, tmp_path):
    """Library users may train in a thread, where Python lets nobody set signal handlers."""
    result = []
    thread = threading.Thread(
        target=lambda: result.append(pretrain(small_recipe(steps=3, updates=1), tmp_path / "run"))
    )
    thread.start()
    thread.join()
    assert result[0].steps == 3
