"""transformers' Trainer with a `TopologyCallback`: train, save checkpoints, resume from one of them.

A small sparse BERT learns to add: in "three plus four is seven" one of the numbers is masked. A second model then
resumes the run from the checkpoint halfway, topology and all, and ends with the same weights, bit for bit.

    python examples/trainer.py
"""

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import AutoModelForMaskedLM, BertConfig, BertTokenizer, Trainer, TrainingArguments, set_seed

import evergraft

NUMBERS = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven"),
    *("eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen"),
]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "plus", "is", *NUMBERS]
SUMS = [(a, b, a + b) for a in range(len(NUMBERS)) for b in range(len(NUMBERS) - a)]
IGNORED = -100  # the label of tokens that are not masked, which transformers leaves out of the loss


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a sparse model with transformers' Trainer, and resume it.")
    parser.add_argument("--steps", type=int, default=300, help="optimiser steps, an even number")
    steps = parser.parse_args().steps

    with TemporaryDirectory() as folder:
        whole = make_trainer(folder, steps)
        whole.train()
        print(f"right answers: {accuracy(whole):.1%}")
        last = Path(folder, "topology.jsonl").read_text().splitlines()[-1]  # the last update, summed over all layers
        print(f"explored: {json.loads(last)['explored']:.1%} of all weights existed at some time")

        resumed = make_trainer(folder, steps)  # made as before; weights and topologies come from the checkpoint
        resumed.train(resume_from_checkpoint=f"{folder}/checkpoint-{steps // 2}")
        print(f"the resumed run ends with the same weights: {same_weights(whole, resumed)}")


def make_trainer(folder: str, steps: int) -> Trainer:
    set_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=8,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = AutoModelForMaskedLM.from_config(config)
    evergraft.sparsify(model, density=0.25, block=(4, 4))
    arguments = TrainingArguments(
        output_dir=folder,
        max_steps=steps,
        save_steps=steps // 2,
        per_device_train_batch_size=64,
        learning_rate=5e-3,
        logging_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        report_to=[],
    )
    topology = evergraft.TopologyCallback(updates=steps // 10, prune_ratio=0.5)
    return Trainer(model, arguments, train_dataset=examples(), callbacks=[topology])


def examples() -> list[dict[str, torch.Tensor]]:
    """Every sum three times, with another number masked each time."""
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)})
    sentences = [f"{NUMBERS[a]} plus {NUMBERS[b]} is {NUMBERS[c]}" for a, b, c in SUMS]
    found = []
    for tokens in tokenizer(sentences, return_tensors="pt")["input_ids"]:
        for place in (1, 3, 5):  # [CLS] three plus four is seven [SEP]
            masked = torch.arange(len(tokens)) == place
            input_ids = tokens.masked_fill(masked, tokenizer.mask_token_id)
            found.append({"input_ids": input_ids, "labels": tokens.masked_fill(~masked, IGNORED)})
    return found


def accuracy(trainer: Trainer) -> float:
    """The share of the masked numbers that the model guesses right."""
    outputs = trainer.predict(trainer.train_dataset)
    masked = outputs.label_ids != IGNORED
    return float((outputs.predictions.argmax(-1) == outputs.label_ids)[masked].mean())


def same_weights(one: Trainer, other: Trainer) -> bool:
    expected = one.model.state_dict()
    return all(torch.equal(expected[name], tensor) for name, tensor in other.model.state_dict().items())


if __name__ == "__main__":
    main()
