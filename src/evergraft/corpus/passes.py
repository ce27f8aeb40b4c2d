"""Passes over the documents of sources: as many as needed, each with a progress bar."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import zstandard
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from evergraft.corpus.formats import Watch
from evergraft.corpus.sources import documents, files

SPOOL = "spool.zst.partial"  # the file that keeps, during preparation, the documents that cannot be read twice
Read = Callable[[str, Sequence[str]], Iterator[str]]  # from the name of a pass and sources to the documents


@contextmanager
def progress_bar(show: bool) -> Iterator[Read]:
    """A function that reads the documents of sources; each call shows a bar, which follows the bytes read from files.

    Args:
        show: whether there is a bar, on standard error.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[seen]}"), TimeElapsedColumn())
    bar = Progress(*columns, console=Console(stderr=True), disable=not show)

    def read(name: str, sources: Sequence[str]) -> Iterator[str]:
        sizes = [path.stat().st_size for source in sources for path in files(source) or []]
        task = bar.add_task(name, total=sum(sizes) if sizes else None, seen="")
        watch: Watch = lambda raw: bar.wrap_file(raw, task_id=task)  # noqa: E731
        words = 0
        for number, document in enumerate(documents(sources, watch), 1):
            words += document.count(" ") + 1
            if number % 64 == 0:
                bar.update(task, seen=f"{number:,} documents, {words:,} words")
            yield document
        bar.update(task, total=1, completed=1, seen=f"{words:,} words")

    with bar:
        yield read


def replayable(sources: Sequence[str], folder: Path, read: Read) -> Callable[[], Iterator[str]]:
    """A function that gives the documents of sources from the first to the last, and can be called several times.

    Files are read again at every call. Other sources, and pipes, are read once here, and kept compressed in a file
    SPOOL of `folder`.
    """
    if all(files(source) is not None and not is_pipe(source) for source in sources):
        return lambda: read("reading", sources)
    spool = folder / SPOOL
    with zstandard.open(spool, "wt", encoding="utf-8") as out:
        for document in read("collecting", sources):
            out.write(json.dumps({"text": document}) + "\n")
    return lambda: _unspool(spool)


def is_pipe(source: str) -> bool:
    """Whether a source is a path that cannot be read a second time."""
    return any(not path.is_file() for path in files(source) or [])


def _unspool(spool: Path) -> Iterator[str]:
    with zstandard.open(spool, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]
