"""A sparse BERT equals a dense one whose weights are masked: outputs, gradients, AdamW steps, in float64."""

from __future__ import annotations

import torch
from transformers import BertConfig, BertForPreTraining

from evergraft import sparse_layers, sparsify
from evergraft.sparse.products.dense import gather


def test_sparse_bert_is_a_masked_dense_bert():
    config = BertConfig(
        vocab_size=97,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    sparse = BertForPreTraining(config).double()
    sparsify(sparse, 0.25, (4, 2), seed=3)
    layers = sparse_layers(sparse)
    dense = BertForPreTraining(config).double()
    state = sparse.state_dict()
    dense.load_state_dict({name: value for name, value in state.items() if name in dense.state_dict()}, strict=False)
    masks = {}
    for name, layer in layers.items():
        dense.set_submodule(name, layer.to_dense())
        masks[name] = layer.topology.mask()
    settings = {"lr": 1e-2, "eps": 1e-6, "weight_decay": 0.01}
    optimizers = [torch.optim.AdamW(model.parameters(), **settings) for model in (sparse, dense)]
    ids = torch.randint(0, 97, (3, 10), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "labels": ids.flip(1), "next_sentence_label": torch.tensor([0, 1, 1])}
    for _ in range(3):
        losses = []
        for model, optimizer in zip((sparse, dense), optimizers, strict=True):
            optimizer.zero_grad()
            losses.append(model(**batch).loss)
            losses[-1].backward()
        torch.testing.assert_close(losses[0], losses[1], rtol=1e-12, atol=0)
        for name, layer in layers.items():
            weight = dense.get_submodule(name).weight
            torch.testing.assert_close(layer.values.grad, gather(weight.grad, layer.topology), rtol=1e-9, atol=1e-14)
            weight.grad *= masks[name]
        for optimizer in optimizers:
            optimizer.step()
        for name, layer in layers.items():
            weight = dense.get_submodule(name).weight.detach()
            torch.testing.assert_close(layer.to_dense().weight.detach(), weight * masks[name], rtol=1e-9, atol=1e-14)
            assert torch.equal(weight * masks[name], weight)
