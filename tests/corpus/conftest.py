"""Documents in files of every kind, settings to prepare prose with, and what a prepared corpus holds."""

from __future__ import annotations

import gzip
import json
import lzma
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from evergraft.corpus import Corpus

DOCUMENTS = ["First document.\nIts second line.", "Second document, with an é.", "Third."]
TEXT = "\n\n".join(DOCUMENTS) + "\n"
LINES = "".join(json.dumps({"text": document}) + "\n" for document in DOCUMENTS)
SETTINGS = {"vocabulary_size": 200, "sequence_length": 32, "validation_fraction": 0.2, "progress": False}
FILES = [f"{split}/{name}.bin" for split in ("train", "validation") for name in ("tokens", "documents", "sentences")]


def texts(corpus: Corpus) -> dict[str, list[list[int]]]:
    """The documents of each split, as lists of token ids."""
    return {
        name: [split.tokens[a:b].tolist() for a, b in pairwise(split.documents)]
        for name, split in (("train", corpus.train), ("validation", corpus.validation))
    }


def write(folder, name):
    """Write DOCUMENTS to a file of the kind that its name tells."""
    path = folder / name
    if ".parquet" in name:
        pq.write_table(pa.table({"text": DOCUMENTS}), path)
        return path
    data = (LINES if "jsonl" in name or "json" in name else TEXT).encode()
    compress = {".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.compress}.get(path.suffix, bytes)
    path.write_bytes(compress(data))
    return path
