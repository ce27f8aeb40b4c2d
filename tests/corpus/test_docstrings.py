"""The prose of docstrings."""

from __future__ import annotations

from evergraft.corpus.docstrings import _prose


def test_docstrings_are_prose_alone(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        '"""This module holds functions that a careful reader will certainly want to know about.\n\n'
        '>>> print("not prose, although it is inside of a docstring of a module")\n\n'
        ":param x: this one is a field and therefore is not prose in the sense of this function\n\n"
        'Short words.\n"""\n'
        "def f():\n"
        '    """Return the answer to the question that everybody has been asking for many years."""\n'
    )
    assert _prose(path) == [
        "This module holds functions that a careful reader will certainly want to know about.",
        "Return the answer to the question that everybody has been asking for many years.",
    ]
    path.write_text("def broken(:\n")
    assert _prose(path) == []
