"""The topologies that a run began and ended with, and their pictures."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from evergraft import EvergraftError, evaluate, export
from evergraft.bert.model import SparseBertForPreTraining, create_model
from evergraft.files.folders import MANIFEST, write_manifest
from evergraft.sparse.conversion import sparse_layers
from evergraft.study.record import read_run
from evergraft.study.topologies import first_topologies, last_topologies, layer_pictures
from evergraft.training.plan import make_plan


def test_the_first_topology_is_the_one_the_run_began_with(finished, corpus):
    record = read_run(finished)
    model = create_model(make_plan(record.recipe, corpus, "cpu").config, record.recipe.seed)
    last = last_topologies(record)
    first = first_topologies(record, last)
    trained = SparseBertForPreTraining.from_pretrained(finished / "model")
    assert len(last) == 12
    for name, topology in last.items():
        assert torch.equal(first[name].positions, model.get_submodule(name).topology.positions)
        assert torch.equal(topology.positions, trained.get_submodule(name).topology.positions)


def test_pictures_count_what_was_kept(finished):
    record = read_run(finished)
    pictures = layer_pictures(record)
    assert len(pictures) == 12
    assert pictures[0].size == "32 x 32 in blocks of 4x4"
    assert all(0 < picture.kept < 1 and picture.explored > 0.25 for picture in pictures)
    assert len(layer_pictures(record, encoder_layers=1)) == 6


def test_layers_of_densities_and_blocks_of_their_own_began_where_the_run_did(finished, corpus, small_recipe):
    recipe = small_recipe(overrides={"*.attention.*": "0.5,2x2", "*.output.dense": 0.125})
    model = create_model(make_plan(recipe, corpus, "cpu").config, recipe.seed)
    began = {name: layer.topology for name, layer in sparse_layers(model).items()}
    first = first_topologies(replace(read_run(finished), recipe=recipe), began)
    assert {topology.block for topology in first.values()} == {(2, 2), (4, 4)}
    assert all(torch.equal(first[name].positions, topology.positions) for name, topology in began.items())


@pytest.fixture(params=["row_offsets", "columns", "transposed_order", None])
def forged(request, finished, tmp_path) -> Path:
    """A run whose model has a damaged topology, or lacks a part of one, under a manifest that matches."""
    run = shutil.copytree(finished, tmp_path / "run")
    path = run / "model" / "model.safetensors"
    tensors = load_file(path)
    layer = "bert.encoder.layer.1.output.dense"
    if request.param is None:
        del tensors[f"{layer}.columns"]
    else:
        tensors[f"{layer}.{request.param}"][1] = 10**6
    save_file(tensors, path, metadata={"format": "pt"})
    manifest = run / "model" / MANIFEST
    facts = {key: value for key, value in json.loads(manifest.read_text()).items() if key != "files"}
    manifest.unlink()
    write_manifest(run / "model", facts)
    return run


def test_a_damaged_topology_is_refused_wherever_it_is_read(forged, tmp_path):
    says = r"bert\.encoder\.layer\.1\.output\.dense"
    with pytest.raises(EvergraftError, match=says):
        last_topologies(read_run(forged))
    with pytest.raises(EvergraftError, match=says):
        export(forged, tmp_path / "exported")
    with pytest.raises(EvergraftError, match=says):
        evaluate(forged)
    assert not (tmp_path / "exported").exists()
