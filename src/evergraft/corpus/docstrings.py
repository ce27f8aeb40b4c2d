"""`builtin:docstrings`: English prose from the docstrings of the Python packages on this machine.

The packages are parsed and never imported.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import re
import site
import sysconfig
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

SHORTEST_PARAGRAPH = 8  # words; shorter paragraphs are rarely sentences
_WORD = re.compile(r"[A-Za-z][a-z]+")
_CODE = re.compile(r"^\s*(>>>|\.\.\. |\.\. |:\w+|@|#|\||\+[-=]|[-=~^*]{3,}|```)|https?://|[{}<>\\]|\w\(|==|::")


def module_docstrings() -> Iterator[str]:
    """One document for each module, in the order of the modules' paths; a paragraph that came before is left out."""
    seen: set[bytes] = set()
    paths = [path for root in _roots() for path in _modules(root)]
    with ProcessPoolExecutor(max_workers=os.process_cpu_count() if hasattr(os, "process_cpu_count") else None) as pool:
        for paragraphs in pool.map(_prose, paths, chunksize=64):
            fresh = [paragraph for paragraph in paragraphs if _first_time(paragraph, seen)]
            if fresh:
                yield "\n".join(fresh)


def docstrings_identity() -> str:
    """A hash of the names and sizes of all modules, which changes when packages are added, removed or updated."""
    digest = hashlib.sha256()
    for root in _roots():
        for path in _modules(root):
            digest.update(f"{path.relative_to(root)}:{path.stat().st_size}\n".encode())
    return digest.hexdigest()


def _roots() -> list[Path]:
    """The folders of the standard library and of the installed packages."""
    paths = [sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    if site.ENABLE_USER_SITE and site.getusersitepackages():
        paths.append(site.getusersitepackages())
    return [root for root in dict.fromkeys(Path(path).resolve() for path in paths) if root.is_dir()]


def _modules(root: Path) -> list[Path]:
    skipped = {"test", "tests", "testing", "site-packages", "dist-packages", "__pycache__", "_vendor"}
    found = []
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if name not in skipped]
        found += [Path(folder) / name for name in files if name.endswith(".py")]
    return sorted(found)


def _prose(path: Path) -> list[str]:
    """The paragraphs of prose in all docstrings of a module, in order; none if the module cannot be parsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
        texts = [
            ast.get_docstring(node, clean=False)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        ]
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError):
        return []
    return [paragraph for text in texts if text for paragraph in _paragraphs(inspect.cleandoc(text))]


def _paragraphs(text: str) -> Iterator[str]:
    for block in re.split(r"\n\s*\n", text):
        lines = block.splitlines()
        if any(_CODE.search(line) for line in lines):
            continue
        paragraph = re.sub(r"[`*]+", "", " ".join(line.strip() for line in lines))
        words = paragraph.split()
        if (
            len(words) >= SHORTEST_PARAGRAPH
            and len(_WORD.findall(paragraph)) > 0.7 * len(words)
            and paragraph.isascii()
        ):
            yield paragraph


def _first_time(paragraph: str, seen: set[bytes]) -> bool:
    digest = hashlib.blake2b(paragraph.encode(), digest_size=8).digest()
    fresh = digest not in seen
    seen.add(digest)
    return fresh
