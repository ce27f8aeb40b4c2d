"""What a recipe and a corpus resolve to: a `Plan`, computed once and handed on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from evergraft.bert.config import SparseBertConfig, buildable_config
from evergraft.bert.examples import VALIDATION_SEED, PretrainingExamples
from evergraft.bert.ledger import Ledger, ledger
from evergraft.bert.sizes import BERT_SIZES, default_encoder_rate, default_learning_rate
from evergraft.corpus import Corpus
from evergraft.corpus.cache import is_prepared
from evergraft.errors import EvergraftError
from evergraft.evolution.growth import GROWTH_RULES, changes_count, uses_gradients
from evergraft.evolution.pruning import PRUNING_RULES
from evergraft.kernels.device import Device, resolve_device
from evergraft.runs.recipe import Recipe
from evergraft.sparse.products import choose_backend
from evergraft.training.compilation import check_compiler

UNBOUNDED_STEPS = 10**9  # transformers wants a number of steps even where the clock decides


@dataclass(frozen=True)
class Plan:
    """What a recipe and a corpus resolve to; every part of a run takes what it needs from here.

    Attributes:
        recipe: the recipe with every default filled in that depends on other fields or on the corpus.
        corpus: the text.
        config: the configuration of the model.
        ledger: what training the model costs, in FLOPs and bytes.
        device: the kind of device that the run trains on.
        training: the examples of the whole run, in their order.
        validation: the examples that the run is validated on.
    """

    recipe: Recipe
    corpus: Corpus
    config: SparseBertConfig
    ledger: Ledger
    device: Device
    training: PretrainingExamples
    validation: PretrainingExamples

    @property
    def is_sparse(self) -> bool:
        """Whether the model has a topology."""
        return not self.recipe.is_dense

    @property
    def most_steps(self) -> int:
        """Optimiser steps of the run; an unreachable number if the clock ends it."""
        return self.recipe.total_steps or UNBOUNDED_STEPS

    @property
    def tokens_per_step(self) -> int:
        """Input tokens of one optimiser step."""
        return self.recipe.batch_size * self.recipe.sequence_length

    @property
    def flops_per_step(self) -> int:
        """Training FLOPs of the encoder in one optimiser step."""
        return self.recipe.batch_size * self.ledger.flops_per_sequence


def usable_device(recipe: Recipe) -> Device:
    """The device that a recipe trains on, once it is known that this machine can do what the recipe asks of it.

    Raises:
        EvergraftError: the recipe asks for a GPU and torch sees none, or it compiles and no compiler works here.
    """
    device = resolve_device(recipe.device)
    if recipe.compile:
        check_compiler(device)
    return device


def make_plan(recipe: Recipe, corpus: Corpus, device: Device) -> Plan:
    """Resolve a recipe, and find out what does not fit before anything is written.

    Args:
        recipe: what to do; a resolved recipe resolves to itself.
        corpus: the recipe's corpus.
        device: the recipe's, from `usable_device`.

    Raises:
        EvergraftError: no model can be built from the recipe's configuration, a block does not divide a layer, a rule
            of another package cannot be loaded or asks for what a run cannot give, the backend cannot compute with such
            blocks on the device, or the corpus has too few documents that fill an input.

    Example:
        >>> recipe = Recipe(model="tiny", corpus="text.txt", steps=100)
        >>> plan = make_plan(recipe, open_corpus(recipe), usable_device(recipe))
        >>> plan.ledger.flops_per_sequence < plan.ledger.dense.flops_per_sequence
        True
    """
    config = buildable_config(
        recipe.model,
        corpus.vocabulary_size,
        recipe.sequence_length,
        sparsity=recipe.sparsity,
        dropout=recipe.dropout,
        pad_token_id=corpus.special_ids.pad,
    )
    cost = ledger(config, recipe.sparsity, recipe.sequence_length)
    if not recipe.is_dense:
        _check_rules(recipe)
        _check_backend(recipe, device)
    recipe = _resolved(recipe, corpus, config)
    training = PretrainingExamples(corpus, corpus.train, recipe.sequence_length, recipe.seed)
    validation = PretrainingExamples(corpus, corpus.validation, recipe.sequence_length, VALIDATION_SEED)
    return Plan(
        recipe,
        corpus,
        config,
        cost,
        device,
        training.of_length((recipe.total_steps or UNBOUNDED_STEPS) * recipe.batch_size),
        validation.of_length(min(len(validation), recipe.validation_sequences)),
    )


def _resolved(recipe: Recipe, corpus: Corpus, config: SparseBertConfig) -> Recipe:
    """The recipe with nothing left open, so that recipe.yaml says all."""
    one_dropout = config.hidden_dropout_prob == config.attention_probs_dropout_prob  # a config.json may have two
    return recipe.model_copy(
        update={
            "model": recipe.model if recipe.model in BERT_SIZES else str(Path(recipe.model).resolve()),
            "vocabulary_size": corpus.vocabulary_size if is_prepared(recipe.corpus) else recipe.vocabulary_size,
            "learning_rate": recipe.learning_rate or default_learning_rate(config),
            "encoder_rate": recipe.encoder_rate or _encoder_rate(recipe),
            "dropout": config.hidden_dropout_prob if one_dropout else recipe.dropout,
            "updates": recipe.updates_or_default,
        }
    )


def _encoder_rate(recipe: Recipe) -> float:
    """A learning rate that was asked for is that of all weights, unless a factor was asked for too."""
    return 1.0 if recipe.learning_rate or recipe.is_dense else default_encoder_rate(recipe.density)


def _check_rules(recipe: Recipe) -> None:
    """Check that the rules can be loaded, and that a run can carry them out."""
    PRUNING_RULES.get(recipe.prune_by)
    grow = GROWTH_RULES.get(recipe.grow_by)
    if changes_count(grow):
        raise EvergraftError(
            f"`grow_by` {recipe.grow_by}: the rule changes how many blocks there are, which a run's checkpoints and "
            "costs do not follow; use it with TopologyUpdater in a loop of your own, or choose another rule"
        )
    if recipe.compile and uses_gradients(grow):
        raise EvergraftError(
            f"`grow_by` {recipe.grow_by}: the rule looks at gradients, which a compiled step does not record; leave "
            "`compile` out, or choose another rule"
        )


def _check_backend(recipe: Recipe, device: Device) -> None:
    """Ask the backend whether it takes such blocks in the precision of the products, by one block of each kind."""
    dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
    for block in {recipe.block, *(override.block or recipe.block for _, override in recipe.overrides)}:
        values = torch.empty(1, *block, device=device, dtype=dtype)
        choose_backend(recipe.backend, values[0], values)
