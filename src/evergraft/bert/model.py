"""BERT with a sparse encoder and heads that touch masked positions only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForPreTraining, BertConfig, BertForPreTraining, PreTrainedModel
from transformers.utils.generic import ModelOutput

from evergraft.bert.lean import use_lean_modules
from evergraft.bert.masking import IGNORED
from evergraft.bert.sizes import FAMILY
from evergraft.errors import EvergraftError
from evergraft.kernels import attention
from evergraft.kernels.vocabulary_loss import VocabularyLoss, vocabulary_loss
from evergraft.sparse.conversion import sparsify
from evergraft.sparse.layer import SparseLinear


class SparseBertConfig(BertConfig):  # type: ignore[no-untyped-call]
    """A BertConfig that also names the sparsity of the encoder.

    Args:
        density: share of the blocks that exist in every fully connected layer of the encoder; 1 is dense.
        block: [R, C].
        topology_seed: of the first topology and the first values.
        backend: of the products.
    """

    model_type = "evergraft-bert"
    density: float = 1.0
    block: list[int] | tuple[int, ...] = (16, 16)
    topology_seed: int = 0
    backend: str = "auto"


@dataclass
class PretrainingOutput(ModelOutput):
    """The loss, and its parts for each sequence of the batch.

    Attributes:
        loss: MLM loss (mean over masked tokens) + NSP loss (mean over sequences), nats.
        mlm_nats: [batch], summed over the masked tokens of a sequence.
        mlm_correct, masked: [batch], masked tokens predicted right, and masked tokens.
        nsp_nats, nsp_correct: [batch].
    """

    loss: Tensor | None = None
    mlm_nats: Tensor | None = None
    mlm_correct: Tensor | None = None
    masked: Tensor | None = None
    nsp_nats: Tensor | None = None
    nsp_correct: Tensor | None = None


class SparsePreTrainedModel(PreTrainedModel):
    """What sparse BERTs with any head have in common when `from_pretrained` loads them."""

    config_class = SparseBertConfig

    def initialize_weights(self) -> None:
        """Draw what the checkpoint lacks: never the weights of a sparse layer, which has lost its topology.

        Raises:
            EvergraftError: the checkpoint lacks a sparse layer.
        """
        for name, module in self.named_modules():
            if isinstance(module, SparseLinear) and not getattr(module.values, "_is_hf_initialized", False):
                raise EvergraftError(
                    f"the checkpoint holds no sparse weights for {name}, though the configuration asks for them: it is "
                    "that of a dense model; load it with density=1"
                )
        super().initialize_weights()  # type: ignore[no-untyped-call]


class SparseBertForPreTraining(SparsePreTrainedModel, BertForPreTraining):  # type: ignore[no-untyped-call]
    """`BertForPreTraining` whose encoder is sparse from the start (docs/method.md, section 1).

    Given `masked_positions`, the vocabulary head is computed there alone, with the same loss and gradients as the full
    head; without, this is transformers' own forward.
    """

    def __init__(self, config: SparseBertConfig) -> None:
        super().__init__(config)
        if config._attn_implementation == "sdpa":
            config._attn_implementation = attention.NAME
        use_lean_modules(self)
        sparsify_as_configured(self, config)

    def forward(self, *args: Any, masked_positions: Tensor | None = None, **kwargs: Any) -> Any:
        """Compute the losses of a batch.

        Args:
            *args: without `masked_positions`, whatever transformers' BertForPreTraining takes.
            masked_positions: int64 [batch, masked], where tokens are to be predicted.
            **kwargs: with `masked_positions`: input_ids, token_type_ids [batch, length], labels [batch, masked] (-100
                is no prediction), next_sentence_label [batch], and what BertModel takes.

        Returns:
            `PretrainingOutput` with `masked_positions`, else transformers' output.
        """
        if masked_positions is None:
            return super().forward(*args, **kwargs)
        labels, next_sentence_label = kwargs.pop("labels"), kwargs.pop("next_sentence_label")
        hidden, pooled = self.bert(*args, return_dict=True, **kwargs)[:2]
        mlm = self._vocabulary_loss(_select(hidden, masked_positions), labels.flatten())
        next_scores = self.cls.seq_relationship(pooled)
        next_scores = next_scores.to(torch.promote_types(next_scores.dtype, torch.float32))
        next_nats = F.cross_entropy(next_scores, next_sentence_label, reduction="none")
        return PretrainingOutput(
            loss=mlm.loss + next_nats.mean(),
            mlm_nats=mlm.nats.view_as(labels).sum(1),
            mlm_correct=mlm.correct.view_as(labels).sum(1),
            masked=(labels != IGNORED).sum(1),
            nsp_nats=next_nats.detach(),
            nsp_correct=next_scores.detach().argmax(-1) == next_sentence_label,
        )

    def _vocabulary_loss(self, hidden: Tensor, labels: Tensor) -> VocabularyLoss:
        """Of hidden states [tokens, hidden] and labels [tokens]."""
        head = self.cls.predictions
        loss: VocabularyLoss = vocabulary_loss(head.transform(hidden), head.decoder.weight, head.decoder.bias, labels)
        return loss


def sparsify_as_configured(model: nn.Module, config: SparseBertConfig) -> None:
    """Make the encoder of a BERT sparse, unless its configuration is that of a dense one."""
    if config.density < 1:
        height, width = config.block
        sparsify(
            model,
            config.density,
            (height, width),
            seed=config.topology_seed,
            std=config.initializer_range,
            backend=config.backend,
        )


def _select(hidden: Tensor, positions: Tensor) -> Tensor:
    """[batch, length, hidden] at positions [batch, masked] -> [batch * masked, hidden]."""
    starts = torch.arange(len(hidden), device=hidden.device) * hidden.shape[1]
    return hidden.flatten(0, 1).index_select(0, (positions + starts[:, None]).flatten())


def bert_config(
    model: str,
    vocabulary_size: int,
    sequence_length: int = 128,
    *,
    density: float = 1.0,
    block: tuple[int, int] = (16, 16),
    seed: int = 0,
    backend: str = "auto",
    dropout: float | None = None,
    pad_token_id: int = 0,
) -> SparseBertConfig:
    """The configuration of a named model of the family, or of any `config.json` of a BERT.

    Args:
        model: `tiny` ... `large`, or a path to a config.json or the folder that holds one.
        dropout: of hidden states and attention; by default the family's, or what the config.json says.

    Raises:
        EvergraftError: an unknown name, or a file that is missing or not a BERT configuration.
    """
    settings = _family_settings(model) if model in FAMILY else _file_settings(Path(model))
    settings |= {
        "vocab_size": vocabulary_size,
        "pad_token_id": pad_token_id,
        "max_position_embeddings": max(sequence_length, settings.get("max_position_embeddings", 0)),
    }
    if dropout is not None:
        settings |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return SparseBertConfig(**settings, density=density, block=list(block), topology_seed=seed, backend=backend)


def create_model(config: SparseBertConfig, seed: int) -> SparseBertForPreTraining:
    """A model with fresh weights, a pure function of (config, seed); the global random state is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SparseBertForPreTraining(config)


def _family_settings(name: str) -> dict[str, Any]:
    size = FAMILY[name]
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
        raise EvergraftError(f"model {str(path)!r} is neither one of {', '.join(FAMILY)} nor the path of a config.json")
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


OWN_KEYS = ("model_type", "architectures", "transformers_version", "density", "block", "topology_seed", "backend")

AutoConfig.register(SparseBertConfig.model_type, SparseBertConfig)
AutoModelForPreTraining.register(SparseBertConfig, SparseBertForPreTraining)
