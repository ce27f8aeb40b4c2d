"""Lean modules keep everything of a BERT but its pace: names, order, draws, modes, outputs."""

from __future__ import annotations

import copy
from types import MethodType

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForPreTraining
from transformers.activations import GELUActivation
from transformers.models.bert.modeling_bert import BertLayer, BertSelfOutput

from evergraft import sparsify
from evergraft.bert.lean import LeanOutput, LeanSelfAttention, use_lean_modules
from evergraft.kernels.dropout import Dropout
from evergraft.kernels.gelu import Gelu
from evergraft.kernels.native import runnable_tiers
from evergraft.sparse.products.cpu import CpuBackend

SIZES = {
    "num_hidden_layers": 2,
    "hidden_size": 128,
    "num_attention_heads": 2,
    "intermediate_size": 256,
    "vocab_size": 50,
}


def bert(dropout=0.0):
    return BertForPreTraining(BertConfig(**SIZES, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout))


def pair(dropout=0.0):
    """A BERT as transformers builds it, and a copy with lean modules."""
    plain = bert(dropout)
    lean = copy.deepcopy(plain)
    use_lean_modules(lean)
    return plain, lean


def batch():
    ids = torch.randint(5, 50, (4, 16))
    return {"input_ids": ids, "labels": ids, "next_sentence_label": torch.randint(2, (4,))}


def loss_and_gradients(model, inputs, dtype):
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = model(**inputs).loss
    return loss, torch.autograd.grad(loss, list(model.parameters()))


def test_every_module_is_replaced():
    _, lean = pair(0.1)
    kinds = [type(module) for module in lean.modules()]
    assert kinds.count(LeanOutput) == 2 * SIZES["num_hidden_layers"]
    assert kinds.count(LeanSelfAttention) == SIZES["num_hidden_layers"]
    assert kinds.count(Gelu) == SIZES["num_hidden_layers"] + 1
    assert Dropout in kinds
    assert not {nn.Dropout, GELUActivation, BertSelfOutput} & set(kinds)
    assert all(module.p == 0.1 for module in lean.modules() if isinstance(module, Dropout))


def test_names_and_their_order_are_kept():
    plain, lean = pair()
    for names in ("named_parameters", "named_buffers", "named_modules"):
        assert [name for name, _ in getattr(lean, names)()] == [name for name, _ in getattr(plain, names)()]


def test_weights_are_the_same_tensors_and_nothing_is_drawn():
    model = bert()
    before, random = model.state_dict(keep_vars=True), torch.get_rng_state()
    use_lean_modules(model)
    after = model.state_dict(keep_vars=True)
    assert list(before) == list(after)
    assert all(before[name] is after[name] for name in before)
    assert torch.equal(torch.get_rng_state(), random)


def test_modes_and_dtypes_are_kept():
    model = bert(0.1).double().eval()
    model.bert.encoder.layer[1].train()
    modes = [module.training for module in model.modules()]
    use_lean_modules(model)
    assert [module.training for module in model.modules()] == modes
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}


def test_subclasses_are_left_alone():
    class Special(nn.Dropout):
        pass

    model = nn.Sequential(Special(0.5), nn.Sequential(nn.Dropout(0.25)))
    use_lean_modules(model)
    assert [type(model[0]), type(model[1][0])] == [Special, Dropout]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_and_gradients_are_those_of_transformers(dtype):
    """In bf16 up to its rounding, over all gradients together."""
    plain, lean = pair()
    inputs = batch()
    (expected, their_gradients), (got, our_gradients) = (loss_and_gradients(m, inputs, dtype) for m in (plain, lean))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(got, expected, rtol=tolerance / 10, atol=0)
    squares = [((a - b).square().sum(), b.square().sum()) for a, b in zip(our_gradients, their_gradients, strict=True)]
    assert sum(a for a, _ in squares) < tolerance**2 * sum(b for _, b in squares)


def test_recorded_outputs_are_those_of_transformers():
    plain, lean = (model.eval() for model in pair())
    for model in (plain, lean):
        model.set_attn_implementation("eager")
    ids, record = batch()["input_ids"], {"output_hidden_states": True, "output_attentions": True}
    with torch.no_grad():
        expected, got = plain(ids, **record), lean(ids, **record)
    assert len(got.hidden_states) == SIZES["num_hidden_layers"] + 1
    assert len(got.attentions) == SIZES["num_hidden_layers"]
    torch.testing.assert_close(got.hidden_states, expected.hidden_states, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got.attentions, expected.attentions, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("by_name", [False, True])
def test_query_key_and_value_share_a_cast(by_name):
    _, lean = pair()
    layer, seen = lean.bert.encoder.layer[0].attention.self, []
    assert type(layer) is LeanSelfAttention
    for name in ("query", "key", "value"):
        getattr(layer, name).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    hidden = torch.randn(2, 16, 128)
    attend = (lambda: layer(hidden_states=hidden)) if by_name else (lambda: layer(hidden))
    plain = attend()[0]
    assert all(each is hidden for each in seen)
    seen.clear()
    with torch.autocast("cpu", torch.bfloat16):
        narrow = attend()[0]
    assert seen[0] is seen[1] is seen[2]
    assert seen[0].dtype == torch.bfloat16
    torch.testing.assert_close(narrow.float(), plain, rtol=0, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiles_whole(dtype):
    _, lean = pair()
    inputs = batch()
    torch.compiler.reset()
    compiled = torch.compile(lean, backend="eager", fullgraph=True)
    for expected, got in zip(*(loss_and_gradients(m, inputs, dtype) for m in (lean, compiled)), strict=True):
        torch.testing.assert_close(got, expected, rtol=2e-2, atol=2e-3 if dtype == torch.bfloat16 else 1e-5)


def sparse_pair(dropout=0.0):
    """A sparse BERT with lean modules, and a copy whose layers do not compute their feed-forward network at once."""
    together = bert(dropout)
    use_lean_modules(together)
    sparsify(together, density=0.25, block=(16, 1))
    apart = copy.deepcopy(together)
    for layer in apart.bert.encoder.layer:
        layer.feed_forward_chunk = MethodType(BertLayer.feed_forward_chunk, layer)
    return together, apart


def calls(monkeypatch):
    """A list that grows with each feed-forward network that the native backend computes at once."""
    found, forward = [], CpuBackend.feed_forward
    monkeypatch.setattr(CpuBackend, "feed_forward", lambda *args: found.append(args) or forward(*args))
    return found


@pytest.mark.skipif(not runnable_tiers(), reason="no native library was built")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sparse_feed_forward_network_is_computed_at_once(dtype, monkeypatch):
    """The same bits as apart, but for the biases of its first layers, whose gradients are summed otherwise."""
    found, (together, apart), inputs = calls(monkeypatch), sparse_pair(), batch()
    loss, gradients = loss_and_gradients(together, inputs, dtype)
    assert len(found) == SIZES["num_hidden_layers"]
    expected_loss, expected = loss_and_gradients(apart, inputs, dtype)
    assert len(found) == SIZES["num_hidden_layers"]
    assert torch.equal(loss, expected_loss)
    for (name, _), gradient, wanted in zip(together.named_parameters(), gradients, expected, strict=True):
        if name.endswith("intermediate.dense.bias"):
            torch.testing.assert_close(gradient, wanted, rtol=1e-2, atol=1e-5 if dtype == torch.float32 else 1e-3)
        else:
            assert torch.equal(gradient, wanted), name


@pytest.mark.skipif(not runnable_tiers(), reason="no native library was built")
@pytest.mark.parametrize("hooked", ["intermediate", "intermediate.intermediate_act_fn", "intermediate.dense", "output"])
def test_hooks_inside_a_feed_forward_network_are_called(hooked, monkeypatch):
    found, (model, _), shapes = calls(monkeypatch), sparse_pair(), []
    layer = model.bert.encoder.layer[0]
    layer.get_submodule(hooked).register_forward_hook(lambda _, inputs, output: shapes.append(output.shape))
    model(**batch())
    assert shapes == [(4, 16, 128 if hooked == "output" else 256)]
    assert len(found) == SIZES["num_hidden_layers"] - 1


@pytest.mark.skipif(not runnable_tiers(), reason="no native library was built")
def test_a_copy_computes_its_own_feed_forward_network():
    model, _ = sparse_pair()
    model.eval()
    inputs, other = batch(), copy.deepcopy(model)
    with torch.no_grad():
        before = model(**inputs).loss
        for parameter in model.bert.encoder.layer[1].intermediate.parameters():
            parameter.zero_()
        assert torch.equal(other(**inputs).loss, before)
        assert not torch.equal(model(**inputs).loss, before)


@pytest.mark.parametrize("chunk", [0, 4])
def test_chunks_of_a_feed_forward_network_change_nothing(chunk):
    model, _ = sparse_pair()
    layer, hidden = model.bert.encoder.layer[0].eval(), torch.randn(2, 16, 128)
    expected = layer(hidden)
    layer.chunk_size_feed_forward = chunk
    torch.testing.assert_close(layer(hidden), expected)
