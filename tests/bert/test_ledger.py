"""FLOPs and bytes against the paper, against torch's own counter, and against real models and optimisers."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from evergraft import EvergraftError, SparseLinear, sparse_layers
from evergraft.bert.config import bert_config
from evergraft.bert.ledger import ledger
from evergraft.bert.model import create_model
from evergraft.bert.sizes import BERT_SIZES, default_encoder_rate, default_learning_rate, learning_rate_factor
from evergraft.sparse.config import SparsityConfig

SPARSE = SparsityConfig(density=0.1, block=(1, 1))


def test_the_papers_figures():
    assert ledger(bert_config("small", 1)).flops_per_sequence == pytest.approx(10.07e9, rel=5e-4)
    assert ledger(bert_config("medium", 1), SPARSE).flops_per_sequence == pytest.approx(2.738e9, rel=5e-4)


@pytest.mark.parametrize("name", ["tiny", "mini"])
def test_against_torchs_counter(name):
    """The encoder of a real model, forward and backward, with attention as plain products."""
    config = bert_config(name, 50, 64)
    config._attn_implementation = "eager"
    encoder = create_model(config, 0).bert.encoder
    hidden = torch.randn(2, 64, config.hidden_size, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        encoder(hidden)[0].sum().backward()
    assert counter.get_total_flops() == 2 * ledger(config, sequence_length=64).flops_per_sequence


@pytest.mark.parametrize("block", [(1, 1), (16, 16), (16, 1), (4, 4)])
def test_bytes_are_those_of_a_real_model(block):
    sparsity = SparsityConfig(density=0.1, block=block)
    config = bert_config("tiny", 50, sparsity=sparsity)
    cost = ledger(config, sparsity)
    layers = sparse_layers(create_model(config, 0)).values()
    parameters = [p for layer in layers for p in layer.parameters()]
    optimizer = torch.optim.AdamW(parameters, fused=True)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moments = [t for state in optimizer.state.values() for t in state.values() if t.dim()]
    size = lambda tensors: sum(t.numel() * t.element_size() for t in tensors)  # noqa: E731
    assert cost.bytes == {
        "weights": size(parameters),
        "gradients": size(p.grad for p in parameters),
        "optimizer": size(moments),
        "indices": size(t for layer in layers for t in layer.topology.tensors()),
    }
    active = sum(layer.values.numel() for layer in layers)
    assert cost.density == active / sum(layer.in_features * layer.out_features for layer in layers)
    assert isinstance(next(iter(layers)), SparseLinear)


def test_to_dict():
    figures = ledger(bert_config("mini", 1), SparsityConfig(density=0.1)).to_dict(sequences=10)
    assert figures["flops_total"] == 10 * figures["flops_per_sequence"]
    assert figures["flops_ratio"] < 0.2
    assert figures["bytes_ratio"] < 0.11
    assert figures["bytes"].keys() >= {"weights", "gradients", "optimizer"}


def test_refusals():
    with pytest.raises(
        EvergraftError, match=r"layer bert\.encoder\.layer\.0\.attention\.self\.query: .*does not divide"
    ):
        ledger(bert_config("tiny", 1), SparsityConfig(density=0.5, block=(48, 48)))


def test_layers_left_dense_and_overrides_are_counted_as_a_real_model_has_them():
    sparsity = SparsityConfig(
        density=0.1, block=(16, 1), exclude="*.1.*", overrides={"*.attention.*": 0.25, "*.output.dense": "4x4"}
    )
    config = bert_config("tiny", 50, sparsity=sparsity)
    encoder = create_model(config, 0).bert.encoder
    sparse = sum(layer.values.numel() for layer in sparse_layers(encoder).values())
    dense = sum(module.weight.numel() for module in encoder.modules() if type(module) is torch.nn.Linear)
    assert dense == 12 * 128**2
    assert sum(linear.weights for linear in ledger(config, sparsity).linears) == sparse + dense


def test_learning_rates():
    dense = {name: default_learning_rate(bert_config(name, 1)) for name in BERT_SIZES}
    assert dense["mini"] == 8e-4
    assert dense["base"] == 2e-4
    assert 1e-4 < dense["large"] < 2e-4 < 2e-3 < dense["tiny"]
    # The paper's own rates at 90 % sparsity: Base and Small 16 x 16, Medium 1 x 1 (docs/method.md, section 3).
    assert dense["base"] * learning_rate_factor(0.1) == pytest.approx(1.28e-3, rel=0.01)
    assert dense["medium"] * learning_rate_factor(0.1) == pytest.approx(1.28e-3, rel=0.01)
    assert default_encoder_rate(0.1) == pytest.approx(4, rel=0.01)
    assert default_encoder_rate(1) == 1
