"""The topologies that a run began and ended with, and their pictures."""

from __future__ import annotations

from dataclasses import replace

import torch

from evergraft.bert.model import SparseBertForPreTraining, create_model
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
