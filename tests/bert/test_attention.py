"""A BERT attends by `evergraft.kernels.attention`, with masks, saved configurations and compilers as before."""

from __future__ import annotations

import torch
from torch.nn import functional as F
from transformers import BertForPreTraining

from evergraft.bert.config import SparseBertConfig
from evergraft.bert.model import SparseBertForPreTraining
from evergraft.kernels import attention

SMALL = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 50}


def test_a_mask_is_kept():
    model = SparseBertForPreTraining(SparseBertConfig(**SMALL)).bfloat16().eval()
    ids = torch.randint(5, 50, (1, 12))
    padded = F.pad(ids, (0, 4))
    with torch.no_grad():
        plain = model(ids).prediction_logits
        masked = model(padded, attention_mask=(padded != 0).long()).prediction_logits[:, :12]
    torch.testing.assert_close(plain, masked, rtol=0, atol=0.05)


def test_the_model_uses_it_unless_told_otherwise():
    assert SparseBertForPreTraining(SparseBertConfig(**SMALL)).config._attn_implementation == attention.NAME
    eager = SparseBertForPreTraining(SparseBertConfig(**SMALL, attn_implementation="eager"))
    assert eager.config._attn_implementation == "eager"


def test_a_saved_configuration_is_plain(tmp_path):
    model = SparseBertForPreTraining(SparseBertConfig(**SMALL))
    model.save_pretrained(tmp_path)
    assert "evergraft" not in (tmp_path / "config.json").read_text().replace(SparseBertConfig.model_type, "")
    settings = {key: value for key, value in model.config.to_dict().items() if key not in ("model_type", "density")}
    BertForPreTraining(type(model.config).__bases__[0](**settings))


def test_a_compiled_model_attends_without_a_mask():
    """With a mask torch could not use flash attention on a GPU."""
    model = SparseBertForPreTraining(SparseBertConfig(**SMALL, hidden_dropout_prob=0, attention_probs_dropout_prob=0))
    masks = []

    def inspect(graph, inputs):
        products = [node for node in graph.graph.nodes if "scaled_dot_product_attention" in str(node.target)]
        masks.extend(node.kwargs["attn_mask"] for node in products)
        return graph

    batch = {
        "input_ids": torch.randint(50, (2, 16)),
        "masked_positions": torch.zeros(2, 1, dtype=torch.int64),
        "labels": torch.ones(2, 1, dtype=torch.int64),
        "next_sentence_label": torch.zeros(2, dtype=torch.int64),
    }
    torch.compiler.reset()
    torch.compile(model, backend=inspect, fullgraph=True)(**batch)
    assert masks == [None, None]
