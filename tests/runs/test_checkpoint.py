"""Checkpoints on disk: whole, verified, and no more than are kept."""

from __future__ import annotations

import pytest

from evergraft import EvergraftError
from evergraft.runs.checkpoint import (
    checkpoint_folder,
    checkpoints,
    delete_old_checkpoints,
    step_of,
    verify_checkpoint,
    write_checkpoint,
)


@pytest.fixture
def folder(tmp_path):
    """A run's folder with checkpoints of steps 2, 4, 6 and 10."""
    for step in (2, 4, 6, 10):
        write_checkpoint(
            checkpoint_folder(tmp_path, step), "this", step, lambda partial: (partial / "weights").write_bytes(b"0101")
        )
    return tmp_path


def test_they_are_ordered_by_their_steps(folder):
    (folder / "checkpoint-old").mkdir()
    assert [step_of(path) for path in checkpoints(folder)] == [2, 4, 6, 10]


def test_the_newest_are_kept_and_those_beyond_go(folder):
    (folder / ".checkpoint-6.partial").mkdir()
    delete_old_checkpoints(folder, keep=2, step=6)
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-4", "checkpoint-6"]


def test_a_failing_write_leaves_nothing(tmp_path):
    def fail(partial):
        (partial / "weights").write_bytes(b"01")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_checkpoint(tmp_path / "checkpoint-2", "this", 2, fail)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("run", "content", "fault"),
    [("this", b"01", "is torn"), ("this", b"0110", "is damaged"), ("other", b"0101", "is foreign")],
)
def test_a_bad_one_is_told_and_the_one_before_it_offered(folder, run, content, fault):
    verify_checkpoint(folder / "checkpoint-4", "this")
    (folder / "checkpoint-4" / "weights").write_bytes(content)
    advice = f"resume from the one before it with: evergraft pretrain --resume {folder}/checkpoint-2"
    with pytest.raises(EvergraftError, match=f"checkpoint-4 {fault}.*; {advice}"):
        verify_checkpoint(folder / "checkpoint-4", run)
    (folder / "checkpoint-2" / "weights").unlink()
    with pytest.raises(EvergraftError, match="checkpoint-2 is torn: weights is missing; start the run anew"):
        verify_checkpoint(folder / "checkpoint-2", "this")
