"""Checkpoints: a torn, a foreign and an unwritable one."""

from __future__ import annotations

import shutil

import pytest

from evergraft import EvergraftError
from evergraft.training import state
from evergraft.training.pretrain import pretrain, resume
from tests.training.comparison import differences
from tests.training.stops import cut


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "manifest.json", "progress.json", "topology.safetensors"]
)
@pytest.mark.parametrize("damage", ["truncated", "removed"])
def test_a_torn_checkpoint_is_refused_and_the_one_before_offered(finished, cut_run, name, damage):
    file = cut_run / "checkpoint-20" / name
    if damage == "removed":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(EvergraftError) as refused:
        resume(cut_run)
    assert str(cut_run / "checkpoint-20") in str(refused.value)
    assert name in str(refused.value)
    assert str(refused.value).endswith(
        f"resume from the one before it with: evergraft pretrain --resume {cut_run / 'checkpoint-10'}"
    )


def test_a_torn_checkpoint_offers_one_before_it(cut_run):
    (cut_run / "checkpoint-10" / "progress.json").unlink()
    with pytest.raises(EvergraftError, match=r"checkpoint-10 is torn: progress\.json is missing; start the run anew"):
        resume(cut_run / "checkpoint-10")


def test_a_foreign_checkpoint_is_refused(cut_run, small_recipe, tmp_path):
    other = cut(small_recipe(seed=5), tmp_path / "other")
    shutil.rmtree(cut_run / "checkpoint-20")
    shutil.copytree(other / "checkpoint-20", cut_run / "checkpoint-20")
    with pytest.raises(EvergraftError, match="is foreign: it belongs to another run"):
        resume(cut_run)


def test_a_full_disk_while_saving_leaves_the_last_checkpoint(finished, small_recipe, tmp_path, monkeypatch):
    save = state.save_training_state

    def full(folder, *rest):
        save(folder, *rest)
        if "20" in folder.name:
            raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr(state, "save_training_state", full)
    with pytest.raises(EvergraftError, match=r"No space left on device; put that right, and go on with: .*run"):
        pretrain(small_recipe(), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-10"]
    monkeypatch.undo()
    resume(tmp_path / "run")
    assert differences(finished, tmp_path / "run") == []
