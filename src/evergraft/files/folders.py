"""Folders that are written whole or not at all, and that reveal when a byte in them has changed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from evergraft.errors import EvergraftError

MANIFEST = "manifest.json"


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new folder to write into, that takes its place at `path` when the block ends without an error.

    Whatever stands at `path` is replaced. A kill leaves the old folder, or the new one, and perhaps a hidden
    `.NAME.partial` beside it, which the next write removes. A kill in the instant between moving the old folder away
    and the new one in leaves nothing at `path`, and both folders beside it, as `.NAME.discarded.partial` and
    `.NAME.partial`.

    Raises:
        EvergraftError: another process is writing the same folder.
        OSError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    if partial.exists():
        with locked(partial):
            shutil.rmtree(partial)
    partial.mkdir(parents=True)
    try:
        with locked(partial):
            yield partial
            _put_in_place(partial, path)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, SafetensorError):  # safetensors reports a full disk, for example, as text alone
            raise OSError(0, str(error), str(path)) from None
        raise


def _put_in_place(partial: Path, path: Path) -> None:
    for file in partial.rglob("*"):
        sync(file)
    sync(partial)
    if path.exists():
        discarded = path.with_name(f".{path.name}.discarded.partial")
        shutil.rmtree(discarded, ignore_errors=True)
        path.rename(discarded)
        partial.rename(path)
        shutil.rmtree(discarded)
    else:
        partial.rename(path)
    sync(path.parent)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder that they lock too, until the block ends or the process does.

    Raises:
        EvergraftError: another process has locked it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EvergraftError(f"another process is at {folder}; wait until it ends, or stop it") from None
        yield
    finally:
        os.close(descriptor)


def write_atomically(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        sync(partial)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read_object(path: Path, keys: Set[str], advice: str) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Raises:
        EvergraftError: the file holds no JSON object, or one without all of `keys`; the sentence ends with `advice`.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found.keys() >= keys:
            return found
    except (ValueError, AttributeError):
        pass
    raise EvergraftError(f"{path} is torn; {advice}")


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write manifest.json: the facts, and size and SHA-256 of every other file of the folder."""
    listed = {name: {"bytes": file.stat().st_size, "sha256": sha256(file)} for name, file in _files(folder).items()}
    (folder / MANIFEST).write_text(json.dumps({**facts, "files": listed}, indent=1), encoding="utf-8")


def verify_manifest(folder: Path, needed: Iterable[str] = ()) -> dict[str, Any]:
    """Read manifest.json and check that the folder holds every file that it lists, unchanged, and no other.

    Args:
        folder: the folder.
        needed: files that the list must hold.

    Raises:
        EvergraftError: the manifest is missing or torn or does not list a file that is needed, a file that it lists is
            missing or changed, or the folder holds another one. Hidden files do not count.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        listed = {name: (facts["bytes"], facts["sha256"]) for name, facts in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise EvergraftError(f"{folder} is torn or foreign: it holds no readable {MANIFEST}") from None
    if unlisted := [name for name in needed if name not in listed]:
        raise EvergraftError(f"{folder} is torn or foreign: its {MANIFEST} does not list {unlisted[0]}")
    files = _files(folder)
    if strange := sorted(name for name in files.keys() - listed.keys() if not name.startswith(".")):
        raise EvergraftError(f"{folder} holds {strange[0]}, which its {MANIFEST} does not list; remove that file")
    for name, (size, digest) in listed.items():
        if name not in files:
            raise EvergraftError(f"{folder} is torn: {name} is missing")
        if files[name].stat().st_size != size:
            raise EvergraftError(f"{folder} is torn: {name} has {files[name].stat().st_size} bytes, expected {size}")
        if sha256(files[name]) != digest:
            raise EvergraftError(f"{folder} is damaged: the bytes of {name} have changed since it was written")
    return manifest


def _files(folder: Path) -> dict[str, Path]:
    """Every file in a folder but its manifest, by its path within it, in the order of the paths."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != MANIFEST)
    return {str(file.relative_to(folder)): file for file in files}


def sha256(file: Path) -> str:
    """The SHA-256 hash of a file's bytes, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until a file or a folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
