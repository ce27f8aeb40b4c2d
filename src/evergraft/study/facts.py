"""The facts that decide a run, and what each of them means to a study.

A fact is a field of the recipe, or a hash of something that the run read from elsewhere. No field is listed here that
says how a model is sparse or how its topology evolves: those are the fields of `SparsityConfig` and `EvolutionConfig`,
so that a new one of them counts in every label, table and comparison at once. A new field of another kind is taken for
one of the `CONDITIONS`, under which alone losses are compared, until it is listed as `TUNING` or `COMPUTATION`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evergraft.evolution.config import EvolutionConfig
from evergraft.runs.recipe import Recipe
from evergraft.sparse.config import SparsityConfig

IDENTITIES = ("corpus_identity", "model_identity")  # fields of an environment: hashes of what a run read from elsewhere
MODEL, SEED = "model", "seed"
TEXT = ("corpus", "tokenizer", "vocabulary_size")  # where text comes from; its identity tells what it is
STEPS = ("steps", "tokens")  # two ways to say how many steps; `Recipe.total_steps` tells the number
RATES = ("learning_rate", "encoder_rate", "beta1", "beta2")
TUNING = (*RATES, "warmup", "weight_decay", "max_gradient_norm", "dropout")  # how weights are trained
TUNED = (*RATES, "dropout")  # what each model may have its own best value of
COMPUTATION = (  # how a run is computed, logged and kept, of which no loss is a function but in its last bits
    "accumulate", "device", "compile", "backend", "log_every", "evaluate_every", "save_every", "keep",
)  # fmt: skip
MEASURED = ("precision", "validation_sequences")  # bear on how a loss is measured; fine-tuned scores are taken in fp32


def _fields(*others: str, of: Mapping[str, Any] = Recipe.model_fields) -> tuple[str, ...]:
    """The recipe's fields that are also among `of`, in the recipe's order, without `others`."""
    return tuple(name for name in Recipe.model_fields if name in of and name not in others)


SPARSITY = _fields(SEED, *COMPUTATION, of=SparsityConfig.model_fields)  # how a model is sparse
EVOLUTION = _fields(SEED, *COMPUTATION, of=EvolutionConfig.model_fields)  # how its topology evolves
CONDITIONS = _fields(MODEL, SEED, *TEXT, *STEPS, *SPARSITY, *EVOLUTION, *TUNING, *COMPUTATION)
WORKLOAD = ("corpus_identity", *STEPS, *CONDITIONS)
FIRST = (MODEL, "density", "block")  # what labels and names of runs tell first
OTHERS = (*_fields(*FIRST, SEED), *IDENTITIES)


def labels(families: Sequence[str], facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """What to call each of several runs: the shortest names that tell them apart.

    A name is the family, the model, density and block, and the workload, as far as runs differ in these; losses under
    unlike workloads are not compared, so a reader has to see them. If that leaves several runs alike, their names also
    tell whatever else they differ in: other fields, or another config.json of the same name.

    Args:
        families: one for each run.
        facts: one for each run.

    Returns:
        A label for each run, such as `dynamic d0.1 16x16 updates 80`.
    """
    names = list(families)
    for fields in ((MODEL,), ("density", "block"), WORKLOAD, OTHERS):
        alike = defaultdict(list)
        for index, name in enumerate(names):
            alike[name if fields is OTHERS else ""].append(index)
        for group in alike.values():
            words = distinctions([facts[index] for index in group], fields)
            for index, told in zip(group, words, strict=True):
                names[index] = f"{names[index]} {told}".rstrip()
    return names


def distinctions(facts: Sequence[Mapping[str, Any]], fields: Sequence[str] = OTHERS) -> list[str]:
    """What tells each of several runs from the others, in the words of the given fields.

    Returns:
        A text for each run, such as `updates 80`; empty texts if the runs differ in none of these fields.
    """
    varied = [name for name in fields if len({repr(each[name]) for each in facts}) > 1]
    models = {each[MODEL] for each in facts}
    short = len({Path(model).stem for model in models}) == len(models)
    return [" ".join(filter(None, (_named_value(name, each, short) for name in varied))) for each in facts]


def spoken(name: str) -> str:
    """A field's name in a text: `prune_ratio` becomes `prune ratio`."""
    return name.replace("_", " ")


def as_text(value: Any) -> str:
    """The value of a field in a text or a cell: a list is its parts, a dict its `key=value` pairs, with blanks between.

    Example:
        >>> as_text({"*.attention.*": {"density": 0.2}})
        '*.attention.*=0.2'
    """
    if isinstance(value, dict):
        return " ".join(f"{key}={_part(inner)}" for key, inner in value.items())
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _part(value: Any) -> str:
    return ",".join(map(str, value.values())) if isinstance(value, dict) else str(value)


def _named_value(name: str, facts: Mapping[str, Any], short: bool) -> str:
    """One fact in words.

    Args:
        name: the field.
        facts: all facts of the run.
        short: whether a model's file name, without its folder and ending, tells it from the other models.
    """
    value = facts[name]
    if facts["density"] == 1 and name in ("density", "block"):
        return ""
    match name:
        case "model":
            return Path(value).stem if short else str(value)
        case "density":
            return f"d{value}"
        case "block":
            return str(value)
        case "corpus_identity" | "model_identity":
            return f"{name.removesuffix('_identity')} {str(value)[:8]}"
        case _:
            return f"{spoken(name)} {as_text(value)}"
