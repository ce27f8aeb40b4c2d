"""Logs that a kill or a power cut has torn."""

from __future__ import annotations

import pytest

from evergraft.errors import EvergraftError
from evergraft.files.jsonlines import JsonLines


@pytest.mark.parametrize("tail", [b'{"step": 3', b"\0\0\0", b"\0\0\0\n", b'{"step": 3, \0\n', b"\xff\n"], ids=repr)
def test_a_torn_last_line_is_passed_over(tmp_path, tail):
    log = JsonLines(tmp_path / "new" / "log.jsonl")
    assert list(log) == []
    log.append({"step": 1}, {"step": 2})
    log.sync()
    with log.path.open("ab") as file:
        file.write(tail)
    assert [entry["step"] for entry in log] == [1, 2]
    log.rewind(1)
    assert log.path.read_text() == '{"step": 1}\n'


def test_a_torn_line_before_the_last_is_told(tmp_path):
    log = JsonLines(tmp_path / "log.jsonl")
    log.path.write_text('{"step": 1}\n{"st\n{"step": 2}\n')
    with pytest.raises(EvergraftError, match=r"log.jsonl is torn: line 2 is not JSON; remove that line"):
        log.rewind(2)
