"""The configuration of a BERT whose encoder may be sparse: of a named size, or of any config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, BertConfig, BertForPreTraining

from evergraft.bert.sizes import BERT_SIZES
from evergraft.errors import EvergraftError
from evergraft.settings import SettingError
from evergraft.sparse.config import SparsityConfig

_SHAPE = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
# Where version 0.1.0 kept how a model is sparse, and what each of these fields is called now.
_OF_0_1_0 = {"density": "density", "block": "block", "topology_seed": "seed", "backend": "backend"}


class SparseBertConfig(BertConfig):  # type: ignore[no-untyped-call]
    """A BertConfig that also says how the encoder is sparse.

    Args:
        sparsity: the fields of a `SparsityConfig`, as JSON holds them; None for a dense encoder.
    """

    model_type = "evergraft-bert"
    sparsity: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        old = {name: kwargs.pop(name, None) for name in _OF_0_1_0}
        old = {_OF_0_1_0[name]: value for name, value in old.items() if value is not None}
        if old.get("density", 1) != 1:
            std = kwargs.get("initializer_range", self.initializer_range)
            self.sparsity = _sparsity(old | {"initial_std": std}).to_dict()
        elif self.sparsity is not None:
            _sparsity(self.sparsity)  # so that a fault in it is found when the configuration is read
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]

    @property
    def sparsity_config(self) -> SparsityConfig:
        """How the encoder is sparse; density 1 for a dense one."""
        return SparsityConfig(density=1.0) if self.sparsity is None else _sparsity(self.sparsity)


def _sparsity(fields: object) -> SparsityConfig:
    """The record of what a configuration holds as `sparsity`.

    Raises:
        EvergraftError: it is no such record, or that of a dense model, for which a configuration holds None.
    """
    if not isinstance(fields, dict):
        raise EvergraftError(f"a configuration's sparsity is the fields of a SparsityConfig, or null; got {fields!r}")
    try:
        config = SparsityConfig(**{str(name): value for name, value in fields.items()})
    except SettingError as error:
        raise error.within("a configuration's sparsity") from None
    if config.is_dense:
        raise EvergraftError("a configuration's sparsity says density 1; a dense model's is null")
    return config


def bert_config(
    model: str,
    vocabulary_size: int,
    sequence_length: int = 128,
    *,
    sparsity: SparsityConfig | None = None,
    dropout: float | None = None,
    pad_token_id: int = 0,
) -> SparseBertConfig:
    """The configuration of a named model of the family, or of any `config.json` of a BERT.

    Args:
        model: `tiny` ... `large`, or a path to a config.json or the folder that holds one.
        vocabulary_size: number of word pieces.
        sequence_length: the least number of tokens that the model must have positions for.
        sparsity: how the encoder is sparse; None, or a density of 1, is dense. First values are drawn with the
            configuration's `initializer_range` unless it names a deviation.
        dropout: probability for hidden states and attention; by default the family's, or what the config.json says.
        pad_token_id: the token id of [PAD].

    Raises:
        EvergraftError: an unknown name, or a file that is missing or not a BERT configuration.
    """
    settings = _named_settings(model) if model in BERT_SIZES else _file_settings(Path(model))
    settings |= {
        "vocab_size": vocabulary_size,
        "pad_token_id": pad_token_id,
        "max_position_embeddings": max(sequence_length, settings.get("max_position_embeddings", 0)),
    }
    if dropout is not None:
        settings |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    config = SparseBertConfig(**settings)
    if sparsity is not None and not sparsity.is_dense:
        std = sparsity.initial_std or config.initializer_range
        config.sparsity = sparsity.model_copy(update={"initial_std": std}).to_dict()
    return config


def _named_settings(name: str) -> dict[str, Any]:
    size = BERT_SIZES[name]
    return {
        "num_hidden_layers": size.layers,
        "hidden_size": size.hidden,
        "num_attention_heads": size.heads,
        "intermediate_size": 4 * size.hidden,
        "hidden_dropout_prob": size.dropout,
        "attention_probs_dropout_prob": size.dropout,
    }


def _file_settings(path: Path) -> dict[str, Any]:
    file = path / "config.json" if path.is_dir() else path
    if not file.is_file():
        raise EvergraftError(
            f"model {str(path)!r} is neither one of {', '.join(BERT_SIZES)} nor the path of a config.json"
        )
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        kind = settings.get("model_type")
    except (ValueError, AttributeError):
        raise EvergraftError(
            f"{file} is not a configuration: expected a JSON object, as transformers saves it"
        ) from None
    if kind not in ("bert", SparseBertConfig.model_type):
        raise EvergraftError(f"{file} configures a model of type {kind!r}; expected 'bert'")
    return {key: value for key, value in settings.items() if key not in OWN_KEYS}


def buildable_config(model: str, vocabulary_size: int, sequence_length: int = 128, **settings: Any) -> SparseBertConfig:
    """Make a configuration as `bert_config` does, and check that a model can be built from it.

    If it comes from a config.json, the model is built once, without memory for its weights.

    Raises:
        EvergraftError: as `bert_config`, or sizes that are below one or do not fit each other, or values that
            transformers refuses.
    """
    try:
        config = bert_config(model, vocabulary_size, sequence_length, **settings)
        small = [name for name in _SHAPE if getattr(config, name) < 1]
        if small:
            raise EvergraftError(f"model {model}: {small[0]} must be at least 1; got {getattr(config, small[0])}")
        if config.type_vocab_size < 2:
            raise EvergraftError(f"model {model}: type_vocab_size must be at least 2, for pairs of segments")
        if model not in BERT_SIZES:
            with torch.device("meta"):
                BertForPreTraining(config)(torch.zeros(1, sequence_length, dtype=torch.int64))
    except EvergraftError:
        raise
    except Exception as error:  # transformers raises errors of many kinds
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise EvergraftError(f"model {model}: no BERT can be built from this configuration ({reason})") from None
    return config


OWN_KEYS = ("model_type", "architectures", "transformers_version", "sparsity", *_OF_0_1_0)  # not those of a plain BERT

AutoConfig.register(SparseBertConfig.model_type, SparseBertConfig)
