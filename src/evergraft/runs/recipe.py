"""A recipe: everything that determines a pre-training run, in one validated record that YAML and flags share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, model_validator

from evergraft.evolution.config import EvolutionConfig
from evergraft.files.yaml import read_yaml
from evergraft.settings import MOST, SEEDS, SettingError, Settings
from evergraft.sparse.config import SparsityConfig


def _as_text(value: object) -> object:
    """A Path as the text that recipes hold."""
    return str(value) if isinstance(value, Path) else value


def _as_texts(value: object) -> object:
    """One source, or several, as a list of texts."""
    several = value if isinstance(value, (list, tuple)) else [value]
    return [_as_text(one) for one in several]


Text = Annotated[str, BeforeValidator(_as_text)]
Sources = Annotated[list[str], BeforeValidator(_as_texts)]
LENGTHS = ("steps", "tokens", "minutes")  # a recipe has one of them
STEPS_AN_UPDATE = 1000  # in 6,000 steps more than five updates did no better (docs/studies.md)
EARLIER_VALUES = {"initialisation": "normal", "encoder_rate": 1.0}  # of fields that version 0.1.0 had not


class TextSettings(Settings):
    """Which model is trained, and on which text."""

    model: Text = Field(
        "mini", description="size of the BERT: tiny, mini, small, medium, base, large, or a config.json"
    )
    corpus: Sources = Field(
        ["builtin:docstrings"], min_length=1, description="a prepared corpus, or text to prepare; may be given again"
    )
    tokenizer: Text | None = Field(None, description="a tokenizer.json or vocab.txt to prepare the corpus with")
    vocabulary_size: int = Field(8192, ge=1, le=MOST, description="word pieces to learn when no tokenizer is given")
    sequence_length: int = Field(128, ge=8, le=65536, description="tokens in an input")


class TrainingSettings(Settings):
    """How a model is trained, for how long, and where."""

    steps: int | None = Field(None, ge=1, le=MOST, description="length of the run in optimiser steps")
    tokens: int | None = Field(None, ge=1, le=10**15, description="length of the run in tokens")
    minutes: float | None = Field(None, gt=0, description="length of the run in minutes, which schedules follow")
    batch_size: int = Field(32, ge=1, le=MOST, description="sequences in an optimiser step")
    accumulate: int = Field(1, ge=1, le=MOST, description="parts that a batch is computed in, to save memory")
    learning_rate: float | None = Field(
        None, gt=0, lt=1, description="peak learning rate (default: the dense model's, by its size)"
    )
    encoder_rate: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="times that rate is the rate of the encoder's weight matrices, sparse or dense (default: by "
        "density, 4 at 0.1; 1 where a learning rate is given)",
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="Adam's decay of the mean gradient")
    beta2: float = Field(0.999, ge=0, lt=1, description="Adam's decay of the mean squared gradient")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the run in which the rate rises to its peak")
    weight_decay: float = Field(0.01, ge=0, description="decoupled weight decay, of weights only")
    max_gradient_norm: float = Field(1.0, ge=0, description="gradients are clipped to this norm; 0 does not clip")
    dropout: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="dropout of hidden states and attention (default: the config.json's; 0.1 from medium on, else 0)",
    )

    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="precision of the products (autocast); weights stay fp32"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to train")
    compile: bool = Field(False, description="compile the step, and capture it in CUDA graphs on a GPU")

    log_every: int = Field(10, ge=1, le=MOST, description="steps between lines in metrics.jsonl")
    evaluate_every: int | None = Field(
        None, ge=1, le=MOST, description="steps between validations (default: at start and end)"
    )
    validation_sequences: int = Field(1024, ge=1, le=MOST, description="most inputs to validate on")
    save_every: int = Field(500, ge=1, le=MOST, description="steps between checkpoints")
    keep: int = Field(2, ge=1, le=MOST, description="checkpoints to keep")


class Recipe(TrainingSettings, EvolutionConfig, SparsityConfig, TextSettings):
    """One pre-training run. Defaults are the paper's where it names one (docs/method.md).

    A field is at once a flag of `evergraft pretrain`, a key of a recipe's or a study's YAML file, and a column of
    reports. The fields of `SparsityConfig` and `EvolutionConfig` are among them.

    Raises:
        SettingError: an unknown field, a value out of range, or fields that contradict each other.

    Example:
        >>> Recipe(model="tiny", steps=1000, density=0.1, block="16x1").total_steps
        1000
    """

    updates: int | None = Field(  # type: ignore[assignment]
        None,
        ge=0,
        le=MOST,
        description="topology updates; 0 is static (default: one in 1,000 steps, at most 160 for 1x1, else 80)",
    )
    seed: int = Field(0, ge=0, lt=SEEDS, description="seed of everything random")

    @model_validator(mode="after")
    def _check_together(self) -> Recipe:
        lengths = [name for name in LENGTHS if getattr(self, name) is not None]
        if len(lengths) != 1:
            raise ValueError(
                "the run's length must be given once, as `steps`, `tokens` or `minutes`; got "
                f"{', '.join(lengths) or 'none'}"
            )
        if self.batch_size % self.accumulate:
            raise ValueError(f"`accumulate` must divide `batch_size`; got {self.accumulate} and {self.batch_size}")
        if self.updates_or_default > (self.total_steps or 2**63) // 2:
            raise ValueError(
                f"{self.updates_or_default} updates in {self.total_steps} steps leave less than two steps to each; "
                f"give `updates` of at most {self._most_updates}, or a longer run"
            )
        return self

    @property
    def updates_or_default(self) -> int:
        """How many topology updates: as asked, else one in STEPS_AN_UPDATE steps.

        The paper's 160 for 1x1 and 80 for larger blocks are the most; a run that the clock ends has these.
        """
        if self.is_dense:
            return 0
        if self.updates is not None:
            return self.updates
        most = min(160 if self.block == (1, 1) else 80, self._most_updates)
        return most if self.total_steps is None else min(most, max(1, self.total_steps // STEPS_AN_UPDATE))

    @property
    def _most_updates(self) -> int:
        return self.most_updates(self.total_steps or 2**63)

    @property
    def total_steps(self) -> int | None:
        """Optimiser steps of the run; None if it is as long as the clock says."""
        if self.tokens is not None:
            return max(1, round(self.tokens / (self.batch_size * self.sequence_length)))
        return self.steps

    @property
    def sparsity(self) -> SparsityConfig:
        """How the model is sparse."""
        return self.part(SparsityConfig)

    @property
    def evolution(self) -> EvolutionConfig:
        """How its topologies evolve."""
        return self.part(EvolutionConfig, updates=self.updates_or_default)

    @property
    def effective(self) -> Recipe:
        """The recipe with those fields at their defaults that have no effect on the run.

        A dense model has no blocks and no updates, and a static one prunes nothing.
        """
        idle: set[str] = set()
        if not self.updates_or_default:
            idle |= EvolutionConfig.model_fields.keys() - {"updates", "group_lasso", "seed"}
        if self.is_dense:
            idle |= SparsityConfig.model_fields.keys() - {"density", "seed", "backend"} | {"group_lasso"}
        defaults = {name: Recipe.model_fields[name].default for name in idle}
        return self.model_copy(update=defaults | {"updates": self.updates_or_default})

    def to_yaml(self) -> str:
        """All fields, including defaults, as a YAML file holds them."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)


def load_recipe(path: Path | None, overrides: dict[str, Any]) -> Recipe:
    """The recipe of a YAML file, with fields of `overrides` in place of its own.

    A length (steps, tokens, minutes) among the overrides replaces the file's.

    Args:
        path: the file; None for a recipe of the overrides alone.
        overrides: fields by name.

    Raises:
        EvergraftError: a file that is missing or not YAML, an unknown field, or a value out of range. The sentence
            names the file unless the fault is one of the overrides.

    Example:
        >>> load_recipe(Path("recipes/first.yaml"), {"steps": 100}).steps
        100
    """
    fields = with_fields(read_yaml(path, "recipe") if path else {}, overrides)
    try:
        return Recipe(**fields)
    except SettingError as error:
        if path and error.name not in overrides:
            raise error.within(path) from None
        raise


def load_stored_recipe(path: Path) -> Recipe:
    """The recipe that a run was begun with, of whatever version: fields that version had not mean what it did.

    Args:
        path: recipe.yaml of a run's folder, or a study's file of a run.

    Raises:
        EvergraftError: a file that is missing or not YAML, an unknown field, or a value out of range.
    """
    return stored_recipe(read_yaml(path, "recipe"), path)


def stored_recipe(fields: dict[str, Any], source: Path) -> Recipe:
    """The same of fields that were read from `source`."""
    return recipe_from(EARLIER_VALUES | fields, source)


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
        return Recipe(**fields)
    except SettingError as error:
        raise error.within(source) from None
