"""Text, corpora and models that many tests share; all small, all deterministic."""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from evergraft import cli
from evergraft.corpus import Corpus, prepare
from evergraft.registry import Registry
from evergraft.runs.recipe import Recipe
from evergraft.training.pretrain import pretrain

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

settings.register_profile("evergraft", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("evergraft")

SUBJECTS = ("the cat", "a small dog", "my old teacher", "the tall captain", "every engineer", "the river", "a storm")
VERBS = ("watches", "follows", "remembers", "builds", "paints", "crosses", "forgets", "repairs", "measures")
OBJECTS = ("the house", "a wooden boat", "seven stones", "the mountain road", "an unfinished bridge", "lanterns")
PLACES = ("in the morning", "near the harbour", "without a word", "after the rain", "beyond the hills", "for years")


def names(registry: Registry) -> str:
    """What a sentence lists that refuses an unknown name."""
    return ", ".join(registry.names())


def prose(documents: int, sentences: int = 40, seed: int = 0) -> list[str]:
    """Documents of simple English sentences, several to a line."""
    rng = random.Random(seed)

    def sentence() -> str:
        words = " ".join(rng.choice(part) for part in (SUBJECTS, VERBS, OBJECTS, PLACES))
        return words[0].upper() + words[1:] + "."

    def document() -> str:
        lines = [" ".join(sentence() for _ in range(4)) for _ in range(sentences // 4)]
        return "\n".join(lines)

    return [document() for _ in range(documents)]


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty documents of prose in one file."""
    path = tmp_path_factory.mktemp("text") / "prose.txt"
    path.write_text("\n\n".join(prose(40)), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def corpus(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The same, prepared for inputs of 32 tokens."""
    output = tmp_path_factory.mktemp("corpus") / "prepared"
    return prepare(
        [str(text_file)], output, vocabulary_size=200, sequence_length=32, validation_fraction=0.2, progress=False
    )


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    torch.manual_seed(0)


SETTINGS = {
    "density": 0.25,
    "block": "4x4",
    "updates": 6,
    "steps": 24,
    "batch_size": 8,
    "sequence_length": 32,
    "learning_rate": 1e-3,
    "dropout": 0.1,  # so that the random state matters
    "log_every": 4,
    "save_every": 10,
    "validation_sequences": 16,
    "keep": 3,
}


@pytest.fixture(scope="session")
def small_recipe(tmp_path_factory, corpus):
    """A function from fields to a small recipe."""
    config = tmp_path_factory.mktemp("model") / "config.json"
    sizes = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    config.write_text(json.dumps({"model_type": "bert", **sizes}))
    return lambda **fields: Recipe(model=str(config), corpus=str(corpus.path), **{**SETTINGS, **fields})


@pytest.fixture(scope="session")
def finished(tmp_path_factory, small_recipe) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    pretrain(small_recipe(), folder)
    return folder


@pytest.fixture
def run(monkeypatch, capsys):
    """Call the command line in this process: (exit code, standard output, standard error)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["evergraft", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as left:
            code = left.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
