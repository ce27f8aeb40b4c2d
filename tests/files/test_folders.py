"""Folders that are written whole or not at all."""

from __future__ import annotations

import pytest
from safetensors import SafetensorError

from evergraft import EvergraftError
from evergraft.files.folders import atomic_folder


def test_two_that_write_one_folder_do_not_disturb_each_other(tmp_path):
    (tmp_path / "new.partial").mkdir()  # somebody's own
    with atomic_folder(tmp_path / "new") as folder:
        (folder / "file").write_text("whole")
        with pytest.raises(EvergraftError, match="another process is at"), atomic_folder(tmp_path / "new"):
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "new.partial"]
    assert (tmp_path / "new" / "file").read_text() == "whole"


def test_what_safetensors_cannot_write_is_told_as_such(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught, atomic_folder(tmp_path / "new"):
        raise SafetensorError("I/O error: No space left on device")
    assert caught.value.filename == str(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
