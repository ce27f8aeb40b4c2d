"""`evergraft corpus prepare`: a file and standard input give the same corpus."""

from __future__ import annotations

import json
import subprocess
import sys


def test_corpus_prepare(run, text_file, tmp_path):
    arguments = ("--vocabulary-size", 200, "--sequence-length", 32)
    code, out, _ = run("corpus", "prepare", text_file, "--output", tmp_path / "corpus", *arguments, "--json")
    assert code == 0
    assert json.loads(out)["splits"]["train"]["documents"] > 30
    piped = subprocess.run(
        [
            sys.executable,
            "-m",
            "evergraft",
            "corpus",
            "prepare",
            "-",
            "--output",
            tmp_path / "piped",
            *map(str, arguments),
        ],
        stdin=text_file.open("rb"),
        capture_output=True,
    )
    assert piped.returncode == 0
    for name in ("tokenizer.json", "train/tokens.bin"):
        assert (tmp_path / "corpus" / name).read_bytes() == (tmp_path / "piped" / name).read_bytes()
