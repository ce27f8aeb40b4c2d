"""A sparse BERT trains the same whether query, key and value share a product or not."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import BertForMaskedLM
from transformers.cache_utils import DynamicCache

from evergraft import TopologyUpdater, sparsify
from evergraft.bert import lean
from evergraft.bert.config import SparseBertConfig
from evergraft.bert.lean import LeanSelfAttention, use_lean_modules
from evergraft.bert.model import create_model
from evergraft.evolution.growth import GROWTH_RULES
from evergraft.kernels.native import runnable_tiers
from evergraft.sparse.joint import joint_linear
from tests.evolution.test_gradients import largest

pytestmark = pytest.mark.skipif(not runnable_tiers(), reason="no native library was built")

SIZES = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}
LENGTH = 13


def model(block=(4, 4), dropout=0.0):
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    made = create_model(SparseBertConfig(**SIZES, **rates, vocab_size=50), 0)
    sparsify(made, 0.5, block, seed=1, initial_std=0.1)  # so that no block's gradient is zero, and norms never tie
    return made.train()


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 50, (4, LENGTH), generator=generator)
    return {
        "input_ids": ids,
        "masked_positions": torch.arange(2).expand(4, 2),
        "labels": ids[:, :2],
        "next_sentence_label": torch.randint(2, (4,), generator=generator),
    }


def apart(x, layers):
    return tuple(layer(x) for layer in layers)


@pytest.fixture
def calls(monkeypatch):
    """The names of the functions that gave the queries, in order."""
    seen = []

    def spy(x, layers):
        outputs = joint_linear(x, layers)
        seen.append(outputs[0].grad_fn.name())
        return outputs

    monkeypatch.setattr(lean, "joint_linear", spy)
    return seen


def train(made, steps=8, grow_by="random", dtype=torch.float32):
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1)  # Adam would make all blocks of one age of one norm
    updater = TopologyUpdater(made, optimizer, steps, updates=3, grow_by=grow_by)
    losses = []
    for step in range(steps):
        torch.manual_seed(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = made(**batch(step)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        updater.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("block", [(1, 1), (16, 1), (16, 16)], ids=str)
def test_losses_and_topologies_are_the_same(block, dtype, calls, monkeypatch):
    """Topologies are the same in fp32; in bf16 a rounding may prune another block."""
    joint, separate = model(block, 0.1), model(block, 0.1)
    losses = train(joint, dtype=dtype)
    assert set(calls) == {"_JointLinearBackward"}
    monkeypatch.setattr(lean, "joint_linear", apart)
    expected = train(separate, dtype=dtype)
    assert losses == pytest.approx(expected, rel=1e-5 if dtype == torch.float32 else 2e-2)
    if dtype == torch.float32:
        for a, b in zip(joint.buffers(), separate.buffers(), strict=True):
            assert torch.equal(a, b)


def test_a_growth_rule_that_looks_at_gradients_sees_each_layer(calls, monkeypatch):
    GROWTH_RULES.register("largest")(largest)
    try:
        joint, separate = model(), model()
        losses = train(joint, grow_by="largest")
        assert len(set(calls)) == 2  # joint, but for the steps in which the rule watches
        monkeypatch.setattr(lean, "joint_linear", apart)
        assert losses == pytest.approx(train(separate, grow_by="largest"), rel=1e-5)
        assert all(map(torch.equal, joint.buffers(), separate.buffers()))
    finally:
        GROWTH_RULES.unregister("largest")


def test_gradient_checkpointing_changes_no_bit(calls):
    made = model(dropout=0.1)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            made.gradient_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(3)
        made(**batch()).loss.backward()
        gradients.append([parameter.grad for parameter in made.parameters()])
        made.zero_grad()
    assert set(calls) == {"_JointLinearBackward"}
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_masks_and_other_attention_functions_get_the_same_heads(calls, monkeypatch):
    made = model().eval()
    inputs = {"input_ids": batch()["input_ids"], "attention_mask": torch.ones(4, LENGTH).tril(9).long()}
    found = {}
    for way in (joint_linear, apart):
        monkeypatch.setattr(lean, "joint_linear", way)
        for name in ("evergraft", "sdpa", "eager"):
            made.set_attn_implementation(name)
            found[name, way] = made(**inputs).prediction_logits
    expected = found["eager", apart]
    for got in found.values():
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_a_decoder_fills_its_cache():
    plain = BertForMaskedLM(SparseBertConfig(**SIZES, vocab_size=50, is_decoder=True)).eval()
    leaner = copy.deepcopy(plain)
    use_lean_modules(leaner)
    assert any(isinstance(module, LeanSelfAttention) for module in leaner.modules())
    ids, outputs = batch()["input_ids"], []
    for each in (plain, leaner):
        cache = DynamicCache(config=each.config)
        each.bert(ids[:, :5], past_key_values=cache, use_cache=True)
        outputs.append(each.bert(ids[:, 5:], past_key_values=cache, use_cache=True)[0])
    torch.testing.assert_close(*outputs)
