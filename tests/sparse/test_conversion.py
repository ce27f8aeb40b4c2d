"""sparsify and densify on models that are not ours."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_model, save_model
from torch import nn
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel
from transformers import (
    BertConfig,
    BertForPreTraining,
    GPT2Config,
    GPT2LMHeadModel,
    ViTConfig,
    ViTForImageClassification,
)

from evergraft import EvergraftError, SparseLinear, densify, sparse_layers, sparsify


def bert() -> BertForPreTraining:
    config = BertConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    return BertForPreTraining(config).eval()


def gpt2() -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=2, n_positions=16)).eval()


def vit() -> ViTForImageClassification:
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=8, patch_size=4
    )
    return ViTForImageClassification(config).eval()


INPUTS = {
    bert: {"input_ids": torch.arange(12).view(2, 6)},
    gpt2: {"input_ids": torch.arange(12).view(2, 6)},
    vit: {"pixel_values": torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)},
}
LAYERS = {bert: 12, gpt2: 8, vit: 12}


@pytest.mark.parametrize("make", INPUTS)
def test_sparsify_then_densify_keeps_the_function(make):
    model = make()
    report = sparsify(model, density=0.25, block=(4, 2))
    assert len(report.layers) == LAYERS[make] == len(sparse_layers(model))
    assert report.active == sum(layer.values.numel() for layer in sparse_layers(model).values())
    assert report.density == report.active / report.total == pytest.approx(0.25)
    assert not any("embed" in name or "pooler" in name or "head" in name for name in report.layers)
    sparse_output = model(**INPUTS[make])[0]
    densify(model)
    assert not any(isinstance(module, SparseLinear) for module in model.modules())
    torch.testing.assert_close(model(**INPUTS[make])[0], sparse_output)


def test_bert_default_is_the_encoder_alone():
    model = bert()
    report = sparsify(model, 0.1, (4, 4))
    kinds = {name.split("layer.")[1].split(".", 1)[1] for name in report.layers}
    assert kinds == {
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    }
    assert type(model.cls.predictions.decoder) is nn.Linear
    assert type(model.bert.pooler.dense) is nn.Linear
    assert "12 layers made sparse" in str(report)


def test_patterns():
    model = bert()
    report = sparsify(model, 0.1, (4, 4), include="*", exclude=["*cls*", "*attention*"])
    assert report.layers == (
        "bert.encoder.layer.0.intermediate.dense",
        "bert.encoder.layer.0.output.dense",
        "bert.encoder.layer.1.intermediate.dense",
        "bert.encoder.layer.1.output.dense",
        "bert.pooler.dense",
    )


def test_biases_are_kept():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4, bias=False))
    bias = model[0].bias
    sparsify(model, 0.5, (2, 2), include="*")
    assert model[0].bias is bias
    assert model[2].bias is None


def test_layers_depend_on_seed_and_name_alone():
    alone = nn.ModuleDict({"b": nn.Linear(16, 16)})
    both = nn.ModuleDict({"a": nn.Linear(16, 16), "b": nn.Linear(16, 16)})
    other = nn.ModuleDict({"b": nn.Linear(16, 16)})
    sparsify(alone, 0.5, (2, 2), include="*", seed=3)
    sparsify(both, 0.5, (2, 2), include="*", seed=3)
    sparsify(other, 0.5, (2, 2), include="*", seed=4)
    assert torch.equal(alone["b"].values, both["b"].values)
    assert torch.equal(alone["b"].columns, both["b"].columns)
    assert not torch.equal(alone["b"].columns, other["b"].columns)
    assert not torch.equal(both["a"].columns, both["b"].columns)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"block": (5, 1)}, r"layer bert\.encoder\.layer\.0\.attention\.self\.query: block 5x1 does not divide"),
        ({"density": 0}, "`density`: Input should be greater than 0; got 0"),
        ({"include": "*nothing*"}, "no linear layer has a name that matches .* linear layers are: bert.encoder"),
        ({"backend": "quick"}, "no backend is called 'quick'"),
        ({"include": "*", "block": (1, 1)}, "shares its weight with"),
    ],
)
def test_refusals_leave_the_model_alone(settings, says):
    model = bert()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(EvergraftError, match=says):
        sparsify(model, **{"density": 0.1, "block": (4, 4), **settings})
    assert before.keys() == model.state_dict().keys()


def test_nothing_sparse_is_an_error():
    for function in (densify, sparse_layers):
        with pytest.raises(EvergraftError, match=r"call evergraft\.sparsify"):
            function(nn.Linear(2, 2))


def test_safetensors_round_trip(tmp_path):
    model, other = bert(), bert()
    sparsify(model, 0.2, (4, 4), seed=1)
    sparsify(other, 0.2, (4, 4), seed=2)
    save_model(model, str(tmp_path / "model.safetensors"))
    load_model(other, tmp_path / "model.safetensors")
    assert torch.equal(model(**INPUTS[bert])[0], other(**INPUTS[bert])[0])


def test_meta_models_stay_on_meta():
    with torch.device("meta"):
        model = bert()
        report = sparsify(model, 0.1, (4, 4))
    assert len(report.layers) == 12
    assert all(layer.values.is_meta for layer in sparse_layers(model).values())


def test_a_densified_gpt2_is_gpt2s_own_again(tmp_path):
    model = gpt2()
    sparsify(model, 0.25, (4, 4))
    densify(model)
    model.save_pretrained(tmp_path)
    again = GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    assert torch.equal(again(**INPUTS[gpt2]).logits, model(**INPUTS[gpt2]).logits)


def test_what_is_frozen_stays_frozen():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)).requires_grad_(False)
    model[1].requires_grad_(True)
    sparsify(model, 0.5, (2, 2), include="*")
    densify(model)
    assert [parameter.requires_grad for parameter in model.parameters()] == [False, False, True, True]


def test_a_pruned_layer_is_refused():
    model = nn.Sequential(nn.Linear(8, 8))
    prune.random_unstructured(model[0], "weight", 0.5)
    with pytest.raises(EvergraftError, match="the weight of layer 0 is no parameter"):
        sparsify(model, 0.5, (2, 2), include="*")


@pytest.mark.parametrize("wrap", [nn.DataParallel, AveragedModel, torch.compile])
def test_densify_through_wrappers(wrap):
    model = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8)))
    sparsify(model, 0.5, (2, 2), include="*")
    expected = model(torch.ones(2, 8))
    wrapped = wrap(model)
    densify(wrapped)
    assert sum(type(module) is nn.Linear for module in wrapped.modules()) == 2
    inner = next(module for module in wrapped.modules() if type(module) is nn.Sequential)
    torch.testing.assert_close(inner(torch.ones(2, 8)), expected)
