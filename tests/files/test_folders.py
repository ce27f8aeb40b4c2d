"""Folders that are written whole or not at all."""

from __future__ import annotations

import json

import pytest
from safetensors import SafetensorError

from evergraft import EvergraftError
from evergraft.files.folders import MANIFEST, atomic_folder, verify_manifest, write_manifest


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


@pytest.fixture
def folder(tmp_path):
    """A folder with two files and a manifest."""
    (tmp_path / "a.json").write_text("a")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.bin").write_text("b")
    write_manifest(tmp_path, {"fact": 1})
    return tmp_path


def relist(folder, change) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest["files"])
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_a_manifest_lists_what_is_there_and_nothing_else(folder):
    assert verify_manifest(folder, ["a.json", "sub/b.bin"])["fact"] == 1
    (folder / ".hidden").touch()
    verify_manifest(folder)
    (folder / "c.bin").touch()
    with pytest.raises(EvergraftError, match=r"holds c\.bin, which its manifest\.json does not list; remove that file"):
        verify_manifest(folder)


@pytest.mark.parametrize("name", ["/etc/hostname", "../outside", "sub", "sub/../a.json", "./a.json"])
def test_a_manifest_names_files_of_its_folder_alone(folder, name):
    (folder.parent / "outside").write_text("secret")
    relist(folder, lambda files: files.update({name: {"bytes": 6, "sha256": "0" * 64}}))
    with pytest.raises(EvergraftError, match=r"is missing$"):
        verify_manifest(folder)


def test_a_manifest_that_lists_nothing_verifies_nothing(folder):
    relist(folder, dict.clear)
    with pytest.raises(EvergraftError, match=r"which its manifest\.json does not list"):
        verify_manifest(folder)
    (folder / "a.json").unlink()
    (folder / "sub" / "b.bin").unlink()
    with pytest.raises(EvergraftError, match=r"torn or foreign: its manifest\.json does not list a\.json"):
        verify_manifest(folder, ["a.json"])


@pytest.mark.parametrize("facts", [None, 3, {}, {"bytes": 1}, []])
def test_facts_of_another_kind_are_a_torn_manifest(folder, facts):
    relist(folder, lambda files: files.update({"a.json": facts}))
    with pytest.raises(EvergraftError, match=r"holds no readable manifest\.json"):
        verify_manifest(folder)
