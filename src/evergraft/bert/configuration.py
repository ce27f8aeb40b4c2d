"""A model's configuration, tried out before anything depends on it."""

from __future__ import annotations

from typing import Any

import torch
from transformers import BertForPreTraining

from evergraft.bert.model import SparseBertConfig, bert_config
from evergraft.bert.sizes import FAMILY
from evergraft.errors import EvergraftError

SIZES = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")


def buildable_config(model: str, vocabulary_size: int, sequence_length: int = 128, **settings: Any) -> SparseBertConfig:
    """`bert_config`, of which a model can be built; that of a file is built once without memory for its weights.

    Raises:
        EvergraftError: as `bert_config`, or sizes that are below one or do not fit each other, or values that
            transformers refuses.
    """
    try:
        config = bert_config(model, vocabulary_size, sequence_length, **settings)
        small = [name for name in SIZES if getattr(config, name) < 1]
        if small:
            raise EvergraftError(f"model {model}: {small[0]} must be at least 1; got {getattr(config, small[0])}")
        if config.type_vocab_size < 2:
            raise EvergraftError(f"model {model}: type_vocab_size must be at least 2, for pairs of segments")
        if model not in FAMILY:
            with torch.device("meta"):
                BertForPreTraining(config)(torch.zeros(1, sequence_length, dtype=torch.int64))
    except EvergraftError:
        raise
    except Exception as error:  # transformers raises its own of many kinds
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise EvergraftError(f"model {model}: no BERT can be built from this configuration ({reason})") from None
    return config
