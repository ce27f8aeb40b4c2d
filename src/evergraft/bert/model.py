"""BERT with a sparse encoder and heads that touch masked positions only."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForPreTraining, BertForPreTraining, PreTrainedModel
from transformers.utils.generic import ModelOutput

from evergraft.bert.config import SparseBertConfig
from evergraft.bert.lean import use_lean_modules
from evergraft.errors import EvergraftError
from evergraft.kernels import attention
from evergraft.kernels.vocabulary_loss import IGNORED, VocabularyLoss, vocabulary_loss
from evergraft.sparse.conversion import sparsify
from evergraft.sparse.layer import SparseLinear

_ENCODER = ".layer."  # in the names of what an encoder consists of, under any prefix


@dataclass
class PretrainingOutput(ModelOutput):
    """The loss, and its parts for each sequence of the batch.

    Attributes:
        loss: MLM loss (mean over masked tokens) + NSP loss (mean over sequences), nats.
        mlm_nats: [batch], the MLM loss summed over the masked tokens of each sequence.
        mlm_correct, masked: int64 [batch], how many masked tokens were predicted right, and how many there are.
        nsp_nats: [batch], the NSP loss of each sequence.
        nsp_correct: bool [batch], whether the relation of its two segments was predicted right.
    """

    loss: Tensor | None = None
    mlm_nats: Tensor | None = None
    mlm_correct: Tensor | None = None
    masked: Tensor | None = None
    nsp_nats: Tensor | None = None
    nsp_correct: Tensor | None = None


class SparsePreTrainedModel(PreTrainedModel):  # type: ignore[no-untyped-call]
    """The base of sparse BERTs with any head: an encoder comes whole out of a checkpoint, or not at all."""

    config_class = SparseBertConfig

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """Load a model as transformers does; only heads that the checkpoint lacks are drawn anew.

        Raises:
            EvergraftError: the checkpoint lacks weights of the encoder or holds others, since it is dense and its
                configuration says that it is sparse, or the other way about; or its topologies are damaged.
        """
        safe = {"use_safetensors": True} | kwargs  # nothing is unpickled
        loaded: Any = super().from_pretrained(*args, output_loading_info=True, **safe)
        model, found = loaded
        for problem, names in (("lacks", found["missing_keys"]), ("also holds", found["unexpected_keys"])):
            if ours := sorted(name for name in names if _ENCODER in name):
                raise EvergraftError(
                    f"the checkpoint {problem} {ours[0]}: its configuration says that the encoder is "
                    f"{'dense' if model.config.sparsity is None else 'sparse'}, and its weights are of another kind; "
                    "restore the config.json that was saved with them, or load a dense model with sparsity=None"
                )
        for name, module in model.named_modules():
            if isinstance(module, SparseLinear):
                module.topology.check(name)
        return (model, found) if output_loading_info else model


class SparseBertForPreTraining(SparsePreTrainedModel, BertForPreTraining):  # type: ignore[no-untyped-call]
    """`BertForPreTraining` whose encoder is sparse from the start (docs/method.md, section 1).

    Given `masked_positions`, the vocabulary head is computed there alone, with the same loss and gradients as the full
    head; without, this is transformers' own forward.
    """

    def __init__(self, config: SparseBertConfig) -> None:
        super().__init__(copy(config))  # so that the caller's configuration stays as it is
        if self.config._attn_implementation == "sdpa":
            self.config._attn_implementation = attention.NAME
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
        """The vocabulary loss of hidden states [tokens, hidden] against labels [tokens]."""
        head = self.cls.predictions
        loss: VocabularyLoss = vocabulary_loss(head.transform(hidden), head.decoder.weight, head.decoder.bias, labels)
        return loss


def sparsify_as_configured(model: nn.Module, config: SparseBertConfig) -> None:
    """Make the encoder of a BERT sparse, unless its configuration is that of a dense one."""
    if config.sparsity is not None:
        sparsify(model, config.sparsity_config)


def encoder_matrices(model: SparseBertForPreTraining) -> list[nn.Parameter]:
    """The weights of an encoder's fully connected layers, sparse and dense."""
    layers = [layer for layer in model.bert.encoder.modules() if isinstance(layer, (SparseLinear, nn.Linear))]
    return [layer.get_parameter("values" if isinstance(layer, SparseLinear) else "weight") for layer in layers]


def _select(hidden: Tensor, positions: Tensor) -> Tensor:
    """Take hidden states [batch, length, hidden] at positions [batch, masked]: [batch * masked, hidden]."""
    starts = torch.arange(len(hidden), device=hidden.device) * hidden.shape[1]
    return hidden.flatten(0, 1).index_select(0, (positions + starts[:, None]).flatten())


def create_model(config: SparseBertConfig, seed: int) -> SparseBertForPreTraining:
    """A model with fresh weights, a pure function of (config, seed); the global random state is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SparseBertForPreTraining(config)


AutoModelForPreTraining.register(SparseBertConfig, SparseBertForPreTraining)
