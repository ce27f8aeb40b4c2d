"""A training loop of your own: a small BERT of which one weight in ten exists, trained with AdamW.

The text is the first documents of evergraft's built-in corpus, the docstrings of the installed Python packages; a text
file of your own does as well. Every update of the topology prunes the weakest blocks and grows as many elsewhere.

    python examples/own_loop.py
    python examples/own_loop.py --text my-text.txt --steps 2000
"""

import argparse
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForMaskedLM, BertConfig, PreTrainedModel

import evergraft
from evergraft.corpus import Corpus, documents, prepare

LENGTH = 64  # tokens in an input
BATCH_SIZE = 16  # inputs in a step
MASKED = 0.15  # share of the tokens that the model has to guess
IGNORED = -100  # the label of all others, which transformers leaves out of the loss


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small sparse BERT in a loop of your own.")
    parser.add_argument("--text", default="builtin:docstrings", help="a text file; a blank line ends a document")
    parser.add_argument("--documents", type=int, default=300, help="how many of its documents to read")
    parser.add_argument("--steps", type=int, default=300, help="optimiser steps")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        train(read_corpus(options.text, options.documents, Path(folder)), options.steps)


def train(corpus: Corpus, steps: int) -> None:
    torch.manual_seed(0)
    inputs, validation = cut(corpus.train.tokens), cut(corpus.validation.tokens)
    mask_id = corpus.special_ids.mask
    config = BertConfig(
        vocab_size=corpus.vocabulary_size,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=512,
        max_position_embeddings=LENGTH,
    )
    model = AutoModelForMaskedLM.from_config(config)
    print(evergraft.sparsify(model, density=0.1, block=(16, 1)))

    # Made after `sparsify`, the optimiser holds moments for existing weights only.
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    updater = evergraft.TopologyUpdater(model, optimizer, total_steps=steps, updates=steps // 10)

    print(f"validation loss before training: {evaluate(model, validation, mask_id):.3f}")
    for step in range(1, steps + 1):
        input_ids, labels = mask(inputs[torch.randint(len(inputs), (BATCH_SIZE,))], mask_id)
        loss = model(input_ids=input_ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        report = updater.step()  # once after every step of the optimiser; empty unless the topology was updated
        optimizer.zero_grad()
        if report and updater.updates_done % 10 == 0:
            exchanged = sum(layer.grown for layer in report)
            print(f"step {step}, loss {loss.item():.3f}: update {updater.updates_done} exchanged {exchanged} blocks")
    print(f"validation loss after training: {evaluate(model, validation, mask_id):.3f}")
    print(f"unigram entropy, the loss of guessing without context: {corpus.unigram_entropy:.3f}")
    print(f"explored: {updater.explored:.1%} of all weights existed at some time")
    print(f"removed-new ratio: {updater.removed_new_ratio:.1%} of the grown blocks were pruned by the next update")


def read_corpus(text: str, count: int, folder: Path) -> Corpus:
    """The first documents of a text as tokens, with a WordPiece vocabulary learnt from them."""
    beginning = folder / "beginning.txt"
    beginning.write_text("\n\n".join(islice(documents([text]), count)), encoding="utf-8")
    return prepare([str(beginning)], folder / "corpus", vocabulary_size=1000, progress=False)


def cut(tokens: np.ndarray) -> Tensor:
    """Tokens cut into inputs: int64 [inputs, LENGTH]."""
    whole = len(tokens) // LENGTH * LENGTH
    return torch.from_numpy(tokens[:whole].astype(np.int64)).view(-1, LENGTH)


def mask(tokens: Tensor, mask_id: int) -> tuple[Tensor, Tensor]:
    """Hide some of the tokens; returns the inputs and the labels, both shaped as the tokens."""
    chosen = torch.rand(tokens.shape) < MASKED
    return tokens.masked_fill(chosen, mask_id), tokens.masked_fill(~chosen, IGNORED)


@torch.no_grad()
def evaluate(model: PreTrainedModel, tokens: Tensor, mask_id: int) -> float:
    """The mean loss, in nats a masked token, with the same masks at every call."""
    model.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        input_ids, labels = mask(tokens, mask_id)
    loss = model(input_ids=input_ids, labels=labels).loss.item()
    model.train()
    return loss


if __name__ == "__main__":
    main()
