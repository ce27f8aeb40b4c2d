"""The two lines, on models that are not BERT: in a user's own loop, and in transformers' Trainer with a resume."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

import evergraft
from tests.sparse.test_conversion import gpt2, vit

RUNS = {
    gpt2: [{"input_ids": (ids := (torch.arange(8) * 5 + n) % 97), "labels": ids} for n in range(24)],
    vit: [
        {"pixel_values": torch.linspace(-1, 1, 192).view(3, 8, 8) * (n + 1), "labels": torch.tensor(n % 2)}
        for n in range(24)
    ],
}


@pytest.mark.parametrize("make", RUNS)
def test_own_loop(make):
    torch.manual_seed(0)
    model = make().train()
    evergraft.sparsify(model, density=0.25, block=(4, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    updater = evergraft.TopologyUpdater(model, optimizer, total_steps=12, updates=4)
    batch = {key: torch.stack([example[key] for example in RUNS[make][:8]]) for key in RUNS[make][0]}
    losses = []
    for _ in range(12):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        updater.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert updater.updates_done == 4
    assert updater.explored > 0.3


class StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.step


def trainer(make, folder: Path, *callbacks: TrainerCallback, updates: int = 6) -> Trainer:
    torch.manual_seed(0)
    model = make()
    evergraft.sparsify(model, density=0.25, block=(4, 4))
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=12,
        per_device_train_batch_size=4,
        save_steps=5,
        learning_rate=1e-3,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        logging_strategy="no",
    )
    topology = evergraft.TopologyCallback(updates=updates, prune_ratio=0.5, group_lasso=0.1)
    return Trainer(model, arguments, train_dataset=RUNS[make], callbacks=[topology, *callbacks])


@pytest.mark.parametrize("make", RUNS)
def test_trainer(make, tmp_path):
    run = trainer(make, tmp_path)
    run.train()
    lines = [json.loads(line) for line in (tmp_path / "topology.jsonl").read_text().splitlines()]
    assert {line["update"] for line in lines} == set(range(1, 7))
    assert len(lines) == 6 * (len(evergraft.sparse_layers(run.model)) + 1)
    assert [line["layer"] for line in lines].count("all") == 6
    assert all(0.25 <= line["explored"] <= 1 for line in lines)


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    expected = one.state_dict()
    return all(torch.equal(expected[key], value) for key, value in other.state_dict().items())


# With a GPT-2 alone: transformers 5.23 renames the weights of a ViT when it saves, dense ones too, and its Trainer does
# not find them again when it resumes.
def test_trainer_resumes_bit_for_bit(tmp_path):
    whole = trainer(gpt2, tmp_path / "whole")
    whole.train()
    cut = trainer(gpt2, tmp_path / "cut", StopAt(7))
    cut.train()
    resumed = trainer(gpt2, tmp_path / "cut")
    resumed.args.resume_from_checkpoint = True  # as scripts do that hand their arguments on
    resumed.train(resume_from_checkpoint=True)
    assert same_weights(whole.model, resumed.model)
    logs = [(tmp_path / run / "topology.jsonl").read_text() for run in ("whole", "cut")]
    assert logs[0] == logs[1] != ""


def test_resuming_from_a_checkpoint_without_topology_is_refused(tmp_path):
    cut = trainer(gpt2, tmp_path, StopAt(5))
    cut.train()
    (tmp_path / "checkpoint-5" / "topology.safetensors").unlink()
    with pytest.raises(evergraft.EvergraftError, match="saved without TopologyCallback"):
        trainer(gpt2, tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))


def test_a_dense_model_is_refused(tmp_path):
    arguments = TrainingArguments(output_dir=str(tmp_path), max_steps=1, use_cpu=True, report_to=[])
    dense = Trainer(gpt2(), arguments, train_dataset=RUNS[gpt2], callbacks=[evergraft.TopologyCallback()])
    with pytest.raises(evergraft.EvergraftError, match="holds no SparseLinear"):
        dense.train()


def test_layers_are_found_through_compile():
    model = nn.Sequential(nn.Linear(8, 8))
    evergraft.sparsify(model, 0.5, (2, 2), include="*")
    assert list(evergraft.sparse_layers(torch.compile(model))) == ["0"]


def test_a_second_run_in_one_folder_saves_its_own_state(tmp_path):
    trainer(gpt2, tmp_path / "twice", updates=2).train()
    whole = trainer(gpt2, tmp_path / "twice")
    whole.train()
    resumed = trainer(gpt2, tmp_path / "twice")
    resumed.train(resume_from_checkpoint=str(tmp_path / "twice" / "checkpoint-5"))
    assert same_weights(whole.model, resumed.model)


def test_a_checkpoint_that_lies_elsewhere(tmp_path):
    whole = trainer(gpt2, tmp_path / "whole")
    whole.train()
    kept = str((tmp_path / "whole" / "checkpoint-5").rename(tmp_path / "kept"))
    with pytest.raises(evergraft.EvergraftError, match="or lies elsewhere; if so, name its folder in TrainingArg"):
        trainer(gpt2, tmp_path / "next").train(resume_from_checkpoint=kept)
    resumed = trainer(gpt2, tmp_path / "next")
    resumed.args.resume_from_checkpoint = kept
    resumed.train(resume_from_checkpoint=kept)
    assert same_weights(whole.model, resumed.model)


def test_weights_that_the_trainer_did_not_find_again_are_noticed(tmp_path):
    trainer(vit, tmp_path).train()
    with pytest.raises(evergraft.EvergraftError, match="saved with other topologies than the model has"):
        trainer(vit, tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))


def test_group_lasso_takes_the_rate_of_each_group(tmp_path):
    run = trainer(gpt2, tmp_path)
    layers = list(evergraft.sparse_layers(run.model).values())
    before = [layer.values.detach().clone() for layer in layers]
    rates = {0.0: layers[0].values, 0.1: layers[1].values}
    optimizer = torch.optim.SGD([{"params": [values], "lr": rate} for rate, values in rates.items()])
    (topology,) = (one for one in run.callback_handler.callbacks if isinstance(one, evergraft.TopologyCallback))
    topology.updater = evergraft.TopologyUpdater(run.model, torch.optim.SGD(run.model.parameters()), 12, updates=0)
    topology.on_optimizer_step(run.args, run.state, run.control, optimizer=optimizer)
    assert torch.equal(layers[0].values, before[0])
    assert layers[1].values.norm() < before[1].norm()
