"""A language model that is not a BERT: a small sparse GPT-2, which writes some text at the end.

`densify` turns the sparse layers into plain ones that compute the same, for tools that know nothing of evergraft. The
script writes the text with both models and compares them.

    python examples/causal_lm.py
    python examples/causal_lm.py --text my-text.txt --prompt "once upon a time" --steps 2000
"""

import argparse
from copy import deepcopy
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedModel

import evergraft
from evergraft.corpus import Corpus, documents, prepare

LENGTH = 64  # tokens in an input
BATCH_SIZE = 16  # inputs in a step


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small sparse GPT-2, and write some text with it.")
    parser.add_argument("--text", default="builtin:docstrings", help="a text file; a blank line ends a document")
    parser.add_argument("--documents", type=int, default=300, help="how many of its documents to read")
    parser.add_argument("--steps", type=int, default=300, help="optimiser steps")
    parser.add_argument("--prompt", default="this function returns", help="how the text that it writes begins")
    options = parser.parse_args()

    with TemporaryDirectory() as folder:
        corpus = read_corpus(options.text, options.documents, Path(folder))
        model = train(corpus, options.steps)
    prompt = torch.tensor([corpus.tokenizer.encode(options.prompt, add_special_tokens=False).ids])

    dense = deepcopy(model)
    evergraft.densify(dense)  # plain layers of the same function, with zeros where no weight exists
    texts = [write(model, prompt, corpus) for model in (model, dense)]
    with torch.no_grad():
        difference = (model(prompt).logits - dense(prompt).logits).abs().max().item()
    print(f"it writes: {texts[0]}")
    print(f"the dense model writes the same: {texts[0] == texts[1]}; logits differ by {difference:.1e} at most")


def train(corpus: Corpus, steps: int) -> PreTrainedModel:
    torch.manual_seed(0)
    tokens = torch.from_numpy(corpus.train.tokens.astype(np.int64))
    config = GPT2Config(
        vocab_size=corpus.vocabulary_size,
        n_embd=128,
        n_layer=2,
        n_head=4,
        n_positions=LENGTH,
        bos_token_id=corpus.special_ids.cls,
        eos_token_id=corpus.special_ids.sep,
        pad_token_id=corpus.special_ids.pad,
    )
    model = AutoModelForCausalLM.from_config(config)
    print(evergraft.sparsify(model, density=0.1, block=(16, 1)))  # GPT-2's Conv1D layers too
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    updater = evergraft.TopologyUpdater(model, optimizer, total_steps=steps, updates=steps // 10)
    model.train()
    for step in range(1, steps + 1):
        starts = torch.randint(len(tokens) - LENGTH, (BATCH_SIZE, 1))
        batch = tokens[starts + torch.arange(LENGTH)]
        loss = model(input_ids=batch, labels=batch).loss  # the model itself compares each token with the next one
        loss.backward()
        optimizer.step()
        updater.step()
        optimizer.zero_grad()
        if step == 1 or step % 100 == 0:
            print(f"step {step}: loss {loss.item():.3f}")
    print(f"explored: {updater.explored:.1%} of all weights existed at some time")
    return model.eval()


def write(model: PreTrainedModel, prompt: torch.Tensor, corpus: Corpus) -> str:
    """Continue the prompt, always with the likeliest token."""
    written = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=30, do_sample=False)
    return corpus.tokenizer.decode(written[0].tolist())


def read_corpus(text: str, count: int, folder: Path) -> Corpus:
    """The first documents of a text as tokens, with a WordPiece vocabulary learnt from them."""
    beginning = folder / "beginning.txt"
    beginning.write_text("\n\n".join(islice(documents([text]), count)), encoding="utf-8")
    return prepare([str(beginning)], folder / "corpus", vocabulary_size=1000, progress=False)


if __name__ == "__main__":
    main()
