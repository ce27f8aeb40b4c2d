"""A sparse BERT comes whole out of a checkpoint, or not at all."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file, save_file

from evergraft import EvergraftError, sparse_layers
from evergraft.bert.config import bert_config
from evergraft.bert.model import SparseBertForPreTraining, create_model
from evergraft.finetuning.model import SparseBertForSequenceClassification
from evergraft.sparse.config import SparsityConfig


@pytest.fixture
def saved(config_file, tmp_path):
    """A function that saves a fresh model, sparse or dense, and returns its folder."""

    def save(density: float):
        sparsity = SparsityConfig(density=density, block=(4, 4))
        folder = tmp_path / f"d{density}"
        create_model(bert_config(str(config_file), 50, 16, sparsity=sparsity), 0).save_pretrained(folder)
        return folder

    return save


def reconfigure(folder, **fields) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize("kind", [SparseBertForPreTraining, SparseBertForSequenceClassification])
def test_a_checkpoint_of_another_kind_than_its_configuration_is_refused(saved, kind):
    dense, sparse = saved(1), saved(0.25)
    settings = json.loads((sparse / "config.json").read_text())["sparsity"]
    reconfigure(dense, sparsity=settings)
    with pytest.raises(EvergraftError, match=r"lacks bert\.encoder\.layer\.0.*says that the encoder is sparse"):
        kind.from_pretrained(dense)
    reconfigure(sparse, sparsity=None)
    with pytest.raises(EvergraftError, match=r"lacks bert\.encoder\.layer\.0.*says that the encoder is dense"):
        kind.from_pretrained(sparse)


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ({"sparsity": [0.1]}, r"sparsity is the fields of a SparsityConfig, or null; got \[0.1\]"),
        ({"sparsity": {"density": 2}}, "a configuration's sparsity: density: Input should be less than or equal to 1"),
        ({"sparsity": {"density": 1}}, "a configuration's sparsity says density 1; a dense model's is null"),
        ({"sparsity": {"dense": 0.1}}, "a configuration's sparsity: dense: no such field"),
        ({"sparsity": None, "density": 2}, "a configuration's sparsity: density: Input should be less than or equal"),
        ({"sparsity": None, "density": "thin"}, "a configuration's sparsity: density: Input should be a valid number"),
        ({"sparsity": None, "density": float("nan")}, "a configuration's sparsity: density: Input should be a finite"),
        ({"sparsity": None, "density": None}, r"the checkpoint lacks bert\.encoder"),
    ],
)
def test_a_configuration_that_says_nonsense_is_refused(saved, field, says):
    folder = saved(0.25)
    reconfigure(folder, **field)
    with pytest.raises(EvergraftError, match=says):
        SparseBertForPreTraining.from_pretrained(folder)


@pytest.mark.parametrize("name", ["row_offsets", "columns", "transposed_offsets", "transposed_order"])
@pytest.mark.parametrize("damage", ["negative", "large", "reversed", "missing"])
def test_a_damaged_topology_is_refused(saved, name, damage):
    path = saved(0.25) / "model.safetensors"
    tensors = load_file(path)
    key = f"bert.encoder.layer.0.output.dense.{name}"
    match damage:
        case "negative":
            tensors[key][1] = -1
        case "large":
            tensors[key][1] = 10**6
        case "reversed":
            tensors[key] = tensors[key].flip(0)
        case "missing":
            del tensors[key]
    save_file(tensors, path, metadata={"format": "pt"})
    says = "the checkpoint lacks" if damage == "missing" else "the topology to load into"
    with pytest.raises(EvergraftError, match=rf"{says} bert\.encoder\.layer\.0\.output\.dense"):
        SparseBertForPreTraining.from_pretrained(path.parent)


def test_the_order_of_overrides_survives_a_checkpoint(config_file, tmp_path):
    """Transformers sorts the keys of a config.json; `*` sorts before `*.query`."""
    sparsity = SparsityConfig(density=0.25, block=(4, 4), overrides={"*.query": 0.5, "*": "16x1"})
    model = create_model(bert_config(str(config_file), 50, 16, sparsity=sparsity), 0)
    model.save_pretrained(tmp_path / "model")
    again = SparseBertForPreTraining.from_pretrained(tmp_path / "model")
    assert again.config.sparsity_config.overrides == sparsity.overrides
    assert sparse_layers(again)["bert.encoder.layer.0.attention.self.query"].topology.density == 0.5
