"""The model family, and heads that touch masked positions only."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForPreTraining, BertForPreTraining

from evergraft import EvergraftError, SparseLinear, densify, sparse_layers
from evergraft.bert.config import bert_config
from evergraft.bert.model import SparseBertForPreTraining, create_model
from evergraft.bert.sizes import BERT_SIZES
from evergraft.sparse.config import SparsityConfig


def batch(vocabulary=50, length=16, masked=4):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, vocabulary, (3, length), generator=generator)
    positions = torch.stack([torch.randperm(length, generator=generator)[:masked].sort().values for _ in range(3)])
    labels = ids.gather(1, positions)
    labels[0, -1], positions[0, -1] = -100, 0  # one input has fewer words to predict
    return {
        "input_ids": ids,
        "token_type_ids": (torch.arange(length) > length // 2).long().expand(3, -1),
        "masked_positions": positions,
        "labels": labels,
        "next_sentence_label": torch.tensor([0, 1, 1]),
    }


@pytest.mark.parametrize("name", BERT_SIZES)
def test_the_family(name):
    size, config = BERT_SIZES[name], bert_config(name, 1000)
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (
        size.layers,
        size.hidden,
        size.heads,
    )
    assert config.intermediate_size == 4 * size.hidden
    assert config.hidden_dropout_prob == config.attention_probs_dropout_prob == (0.1 if size.layers >= 8 else 0.0)
    assert config.hidden_act == "gelu"


def test_gradients_by_input(config_file):
    """`torch.func` sees through the whole model, whose native parts then give way to torch's own operators."""
    model = create_model(bert_config(str(config_file), 50, 16, sparsity=SparsityConfig(density=0.25, block=(4, 4))), 0)
    parameters, inputs = dict(model.named_parameters()), batch()

    def loss(parameters, inputs):
        one = {name: tensor[None] for name, tensor in inputs.items()}
        return torch.func.functional_call(model, parameters, kwargs=one).loss

    by_input = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, inputs)
    for row in range(3):
        model.zero_grad()
        model(**{name: tensor[row : row + 1] for name, tensor in inputs.items()}).loss.backward()
        for name, parameter in parameters.items():
            torch.testing.assert_close(by_input[name][row], parameter.grad, rtol=1e-4, atol=1e-6)


def test_same_loss_and_gradients_as_the_full_head(config_file):
    model = create_model(
        bert_config(str(config_file), 50, 16, sparsity=SparsityConfig(density=0.25, block=(4, 4))), 0
    ).double()
    inputs = batch()
    output = model(**inputs)
    output.loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    labels = torch.full_like(inputs["input_ids"], -100)
    for row in range(3):
        for position, label in zip(inputs["masked_positions"][row], inputs["labels"][row], strict=True):
            if label != -100:
                labels[row, position] = label
    plain = {key: inputs[key] for key in ("input_ids", "token_type_ids", "next_sentence_label")}
    full = model(**plain, labels=labels)
    full.loss.backward()
    torch.testing.assert_close(output.loss, full.loss, rtol=1e-12, atol=0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-9, atol=1e-14)
    scores = full.prediction_logits.gather(1, inputs["masked_positions"][..., None].expand(-1, -1, 50))
    nats = F.cross_entropy(scores.transpose(1, 2), inputs["labels"], ignore_index=-100, reduction="none").sum(1)
    torch.testing.assert_close(output.mlm_nats, nats, rtol=1e-12, atol=0)
    assert output.masked.tolist() == [3, 4, 4]
    right = (scores.argmax(-1) == inputs["labels"]) & (inputs["labels"] != -100)
    assert output.mlm_correct.tolist() == right.sum(1).tolist()


def test_density_one_is_dense(config_file):
    model = create_model(bert_config(str(config_file), 50), 0)
    assert not any(isinstance(module, SparseLinear) for module in model.modules())


def test_weights_are_a_function_of_config_and_seed(config_file):
    config = bert_config(str(config_file), 50, sparsity=SparsityConfig(density=0.1, block=(4, 4)))
    state = torch.get_rng_state()
    first, same, other = create_model(config, 1), create_model(config, 1), create_model(config, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert not torch.equal(first.bert.embeddings.word_embeddings.weight, other.bert.embeddings.word_embeddings.weight)


def test_from_pretrained(config_file, tmp_path):
    model = create_model(
        bert_config(str(config_file), 50, 16, sparsity=SparsityConfig(density=0.25, block=(16, 1), seed=3)), 0
    ).eval()
    model.save_pretrained(tmp_path / "model")
    for loader in (SparseBertForPreTraining, AutoModelForPreTraining):
        again = loader.from_pretrained(tmp_path / "model").eval()
        assert torch.equal(model(**batch()).mlm_nats, again(**batch()).mlm_nats)
        for name, layer in sparse_layers(again).items():
            layer.topology.validate()
            assert torch.equal(layer.columns, sparse_layers(model)[name].columns)


def test_a_batch_without_positions_is_transformers_own(config_file):
    model = create_model(bert_config(str(config_file), 50, 16), 0).eval()
    plain = BertForPreTraining(model.config).eval()
    plain.load_state_dict(model.state_dict())
    ids = batch()["input_ids"]
    torch.testing.assert_close(model(ids).prediction_logits, plain(ids).prediction_logits)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("not json", "is not a configuration"),
        ("[]", "is not a configuration"),
        ('{"model_type": "gpt2"}', "configures a model of type 'gpt2'; expected 'bert'"),
    ],
)
def test_bad_config_files(tmp_path, content, says):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(EvergraftError, match=says):
        bert_config(str(tmp_path), 50)


def test_unknown_model():
    with pytest.raises(EvergraftError, match="model 'giant' is neither one of tiny, mini"):
        bert_config("giant", 50)


def test_a_densified_model_can_be_saved_and_read(config_file, tmp_path):
    model = create_model(
        bert_config(str(config_file), 50, 16, sparsity=SparsityConfig(density=0.25, block=(4, 4))), 0
    ).eval()
    densify(model)
    model.save_pretrained(tmp_path / "model")
    again = SparseBertForPreTraining.from_pretrained(tmp_path / "model").eval()
    assert torch.equal(model(**batch()).mlm_nats, again(**batch()).mlm_nats)
