"""A recipe: everything that determines a pre-training run, in one validated record that YAML and flags share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from evergraft.errors import EvergraftError


def parse_block(text: object) -> tuple[int, int]:
    """`16x16`, `16` or [16, 16] -> (16, 16).

    Raises:
        EvergraftError: anything else.
    """
    if isinstance(text, (list, tuple)) and len(text) == 2 and all(type(side) is int and side > 0 for side in text):
        return text[0], text[1]
    match = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", str(text))
    if match is None:
        raise EvergraftError(
            f"block must be ROWSxCOLUMNS, such as 16x16 or 16x1, or one number for a square; got {text}"
        )
    return int(match[1]), int(match[2] or match[1])


Block = Annotated[
    tuple[int, int], BeforeValidator(parse_block), PlainSerializer(lambda block: f"{block[0]}x{block[1]}")
]
Sources = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]

SEEDS = 2**32  # from 0 on: numpy takes no others
MOST = 10**9  # of whatever is counted: past it something overflows
LENGTHS = ("steps", "tokens", "minutes")  # a recipe has one of them


class Recipe(BaseModel):
    """One pre-training run. Defaults are the paper's where it names one (docs/method.md); a field is a flag."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=False, protected_namespaces=(), allow_inf_nan=False
    )

    model: str = Field("mini", description="tiny, mini, small, medium, base, large, or a config.json")
    corpus: Sources = Field(
        ["builtin:docstrings"], min_length=1, description="a prepared corpus, or text to prepare; may be given again"
    )
    tokenizer: str | None = Field(None, description="a tokenizer.json or vocab.txt to prepare the corpus with")
    vocabulary_size: int = Field(8192, ge=1, le=MOST, description="word pieces to learn when no tokenizer is given")
    sequence_length: int = Field(128, ge=8, le=65536, description="tokens an input has")

    density: float = Field(0.1, gt=0, le=1, description="share of the encoder's blocks that exist; 1 is dense")
    block: Block = Field((16, 16), description="rows x columns of a block; 1x1 is unstructured")
    updates: int | None = Field(
        None, ge=0, le=MOST, description="topology updates; 0 is static (default: 160 for 1x1, else 80)"
    )
    prune_ratio: float = Field(0.5, ge=0, le=1, description="share of blocks the first update prunes")
    prune_decay: Literal["cosine", "linear", "constant"] = Field("cosine", description="how that share falls")
    prune_by: Literal["l1", "l2", "linf", "random"] = Field("l1", description="block norm that decides what is pruned")
    group_lasso: float = Field(0.0, ge=0, description="strength of decoupled Group Lasso")

    steps: int | None = Field(None, ge=1, le=MOST, description="length of the run in optimiser steps")
    tokens: int | None = Field(None, ge=1, le=10**15, description="length of the run in tokens")
    minutes: float | None = Field(None, gt=0, description="length of the run in minutes, which schedules follow")
    batch_size: int = Field(32, ge=1, le=MOST, description="sequences an optimiser step")
    accumulate: int = Field(1, ge=1, le=MOST, description="parts a batch is computed in, to save memory")
    learning_rate: float | None = Field(None, gt=0, lt=1, description="peak (default: by model and density)")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the run in which the rate rises to its peak")
    weight_decay: float = Field(0.01, ge=0, description="decoupled, on weights only")
    max_gradient_norm: float = Field(1.0, ge=0, description="gradients are clipped to this norm; 0 does not clip")
    dropout: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="of hidden states and attention (default: the config.json's; 0.1 for medium and larger, else 0)",
    )

    precision: Literal["fp32", "bf16"] = Field("fp32", description="of the products (autocast); weights stay fp32")
    seed: int = Field(0, ge=0, lt=SEEDS, description="of everything random")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to train")
    compile: bool = Field(False, description="compile the step, and capture it in CUDA graphs on a GPU")
    backend: str = Field("auto", description="of the sparse products: auto, dense, cpu or gpu")

    log_every: int = Field(10, ge=1, le=MOST, description="steps between lines in metrics.jsonl")
    evaluate_every: int | None = Field(
        None, ge=1, le=MOST, description="steps between validations (default: at start and end)"
    )
    validation_sequences: int = Field(1024, ge=1, le=MOST, description="validate on at most this many inputs")
    save_every: int = Field(500, ge=1, le=MOST, description="steps between checkpoints")
    keep: int = Field(2, ge=1, le=MOST, description="checkpoints kept")

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_is_a_number(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, bool) and info.field_name != "compile":
            raise ValueError(f"expected another value than true or false; got {str(value).lower()}")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Recipe:
        lengths = [name for name in LENGTHS if getattr(self, name) is not None]
        if len(lengths) != 1:
            raise ValueError(
                f"the run's length must be given once, as steps, tokens or minutes; got {', '.join(lengths) or 'none'}"
            )
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate must divide batch_size; got {self.accumulate} and {self.batch_size}")
        if self.updates_or_default > (self.total_steps or 2**63) // 2:
            raise ValueError(
                f"{self.updates_or_default} updates in {self.total_steps} steps leave less than two steps to each; "
                f"give updates of at most {(self.total_steps or 0) // 2}, or a longer run"
            )
        return self

    @property
    def updates_or_default(self) -> int:
        """How many topology updates: as asked, else 160 for 1x1 and 80 for larger blocks, no more than fit."""
        if self.density == 1:
            return 0
        if self.updates is not None:
            return self.updates
        return min(160 if self.block == (1, 1) else 80, (self.total_steps or 2**63) // 2)

    @property
    def total_steps(self) -> int | None:
        """Optimiser steps of the run; None if it is as long as the clock says."""
        if self.tokens is not None:
            return max(1, round(self.tokens / (self.batch_size * self.sequence_length)))
        return self.steps

    @property
    def effective(self) -> Recipe:
        """The same run, with the fields that it does not go by at their defaults: a dense model has no blocks and no
        updates, a static one prunes nothing.
        """
        idle = [] if self.updates_or_default else ["prune_ratio", "prune_decay", "prune_by"]
        idle += ["block", "group_lasso"] if self.density == 1 else []
        defaults = {name: Recipe.model_fields[name].default for name in idle}
        return self.model_copy(update=defaults | {"updates": self.updates_or_default})

    def to_yaml(self) -> str:
        """All fields, defaults too."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_recipe(path: Path | None, overrides: dict[str, Any]) -> Recipe:
    """The recipe of a YAML file, with fields of `overrides` in place of its own.

    A length (steps, tokens, minutes) among the overrides replaces the file's.

    Raises:
        EvergraftError: a file that is missing or not YAML, an unknown field, or a value out of range.
    """
    fields = with_fields(read_yaml(path, "recipe") if path else {}, overrides)
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        raise EvergraftError(_sentence(error, path, overrides)) from None


def with_fields(fields: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Fields with others in their place; a length among these replaces whichever length stood there."""
    lengths = set(LENGTHS) if others.keys() & set(LENGTHS) else set()
    return {name: value for name, value in fields.items() if name not in lengths} | others


def recipe_from(fields: dict[str, Any], source: Path) -> Recipe:
    """The recipe of fields that were read from `source`.

    Raises:
        EvergraftError: an unknown field, or a value out of range; the sentence names `source`.
    """
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        sentence = _sentence(error, source, {})
        raise EvergraftError(sentence if sentence.startswith(str(source)) else f"{source}: {sentence}") from None


def read_yaml(path: Path, kind: str) -> dict[str, Any]:
    """The fields of a YAML file.

    Args:
        kind: what the file is, for the sentences: `recipe` or `study`.

    Raises:
        EvergraftError: a file that is missing, not YAML, names a field twice, or holds no fields.
    """
    try:
        fields = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise EvergraftError(f"{kind} {path} does not exist; expected a YAML file of {kind} fields") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise EvergraftError(f"{kind} {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(fields, dict):
        raise EvergraftError(f"{kind} {path} must hold `field: value` lines; got {type(fields).__name__}")
    return fields


class _Loader(yaml.SafeLoader):
    """Refuses a field that is named twice, of which the last would count."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(problem=f"{name} stands twice in one place; keep one of them")
        return super().construct_mapping(node, deep)


def _sentence(error: ValidationError, path: Path | None, overrides: dict[str, Any]) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = f"no such field; a recipe has {', '.join(Recipe.model_fields)}"
    elif name and first["type"] != "value_error":
        message = f"{message}; got {first['input']!r}"
    if not name:
        return message
    source = f"{path}: {name}" if path and name not in overrides else f"--{name.replace('_', '-')}"
    return f"{source}: {message}"
