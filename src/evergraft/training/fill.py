"""What a finished run's model puts in place of masked words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import dropwhile, islice
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from tokenizers import Tokenizer

from evergraft.bert.examples import VALIDATION_SEED, PretrainingExamples
from evergraft.bert.model import SparseBertForPreTraining
from evergraft.bert.pairs import NEXT
from evergraft.bert.randomness import Purpose, generator
from evergraft.corpus.corpus import TOKENIZER, special_ids
from evergraft.corpus.vocabulary import load_vocabulary
from evergraft.errors import EvergraftError
from evergraft.runs.folder import Run
from evergraft.runs.record import Record
from evergraft.training.inputs import reopen_corpus

MASK = "[MASK]"
SHOWN = 3  # guesses for each masked word
Input = tuple[str, list[int], list[str] | None]  # the text, its tokens, and the words that were masked if known


class Guess(Record):
    """A piece that may stand in place of the masked word.

    Attributes:
        word: the piece as it is written.
        probability: by the model, in [0, 1].
    """

    word: str
    probability: float


class FilledText(Record):
    """A text with masked words, and what the model puts in their places."""

    text: str = Field(description="the text, with [MASK] where words were hidden")
    guesses: list[list[Guess]] = Field(description="for each [MASK] the likeliest pieces, the likeliest first")
    answers: list[str] | None = Field(None, description="the words that were hidden, where they are known")


def fill(run_folder: Path, texts: Sequence[str] | None = None, *, count: int = 6) -> list[FilledText]:
    """Let a finished run's model fill in masked words.

    Args:
        run_folder: the folder of a finished run.
        texts: each with at least one [MASK]; by default `count` inputs of the run's own validation split, text that it
            was not trained on, each with one word masked, which is one piece and made of letters.
        count: how many inputs of the validation split are taken.

    Returns:
        A `FilledText` for each text.

    Raises:
        EvergraftError: there is no run or it has not finished, a text has no [MASK] or is longer than the model's
            inputs, or without texts the run's corpus has changed.

    Example:
        >>> fill(Path("runs/first"), ["return a [MASK] of strings"])[0].guesses[0][0].word
        'list'
    """
    run = Run.open(run_folder)
    model = SparseBertForPreTraining.from_pretrained(run.model_folder).eval()
    tokenizer = load_vocabulary(run.model_folder / TOKENIZER)
    if texts is None:
        inputs: Iterable[Input] = islice(_validation_inputs(run, tokenizer), count)
    else:
        inputs = [(text, _encoded(text, tokenizer, model.config.max_position_embeddings), None) for text in texts]
    return [
        FilledText(text=text, guesses=_guesses(model, tokenizer, ids), answers=answers) for text, ids, answers in inputs
    ]


def _encoded(text: str, tokenizer: Tokenizer, longest: int) -> list[int]:
    ids: list[int] = tokenizer.encode(text).ids
    if tokenizer.token_to_id(MASK) not in ids:
        raise EvergraftError(f"{text!r} has no {MASK}; write {MASK} where the model is to fill in a word")
    if len(ids) > longest:
        raise EvergraftError(f"{text[:40]!r}... takes {len(ids)} tokens; the model takes {longest}: shorten it")
    return ids


def _validation_inputs(run: Run, tokenizer: Tokenizer) -> Iterator[Input]:
    """Inputs of the validation split, in an order of their own, with one word masked: text, tokens, and the word."""
    corpus = reopen_corpus(run)
    examples = PretrainingExamples(corpus, corpus.validation, run.recipe.sequence_length, VALIDATION_SEED)
    for index in generator(Purpose.ORDER, VALIDATION_SEED, 0).permutation(len(examples)).tolist():
        pair = examples.pairs.pair(VALIDATION_SEED, 0, index)
        whole = [word[0] for word in examples.masking.words(pair.token_ids) if len(word) == 1]
        words = [place for place in whole if _piece(tokenizer, pair.token_ids[place]).isalpha()]
        if words and pair.label == NEXT:
            place = words[int(generator(Purpose.MASK, VALIDATION_SEED, 0, index).integers(len(words)))]
            answer, masked = _piece(tokenizer, pair.token_ids[place]), pair.token_ids.copy()
            masked[place] = corpus.special_ids.mask
            yield _text(masked, tokenizer), masked.tolist(), [answer]


def _piece(tokenizer: Tokenizer, token: int) -> str:
    return tokenizer.id_to_token(int(token)) or ""


def _text(ids: np.ndarray, tokenizer: Tokenizer) -> str:
    """Tokens as text: pieces joined to words, but for a rest of a word at the start; of special tokens [MASK] alone."""
    hidden = {*special_ids(tokenizer)} - {special_ids(tokenizer).mask}
    pieces = [_piece(tokenizer, token) for token in ids.tolist() if token not in hidden]
    return " ".join(dropwhile(lambda piece: piece.startswith("##"), pieces)).replace(" ##", "")


@torch.inference_mode()
def _guesses(model: SparseBertForPreTraining, tokenizer: Tokenizer, ids: Sequence[int]) -> list[list[Guess]]:
    tokens = torch.tensor([list(ids)])
    scores = model(input_ids=tokens).prediction_logits[0]
    likeliest = scores[tokens[0] == special_ids(tokenizer).mask].softmax(-1).topk(SHOWN)
    return [
        [Guess(word=_piece(tokenizer, token), probability=p) for token, p in zip(*found, strict=True)]
        for found in zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)
    ]
