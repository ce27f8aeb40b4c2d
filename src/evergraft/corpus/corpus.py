"""A prepared corpus: its folder and its reader.

The folder holds `manifest.json`, `tokenizer.json`, and for each of `train` and `validation`: `tokens.bin` (uint16 where
the vocabulary fits, else uint32), `documents.bin` and `sentences.bin` (uint64: where each starts in the tokens, and the
end). All numbers are little-endian.
"""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from evergraft.errors import EvergraftError
from evergraft.files.folders import MANIFEST, verify_manifest

FORMAT = 1
TOKENIZER = "tokenizer.json"
SPLITS = ("train", "validation")
OFFSET = np.dtype("<u8")


class SpecialIds(NamedTuple):
    """The token ids of [PAD], [UNK], [CLS], [SEP] and [MASK]."""

    pad: int
    unk: int
    cls: int
    sep: int
    mask: int


SPECIAL_TOKENS = SpecialIds._fields  # as `[PAD]` ... below


class Split(NamedTuple):
    """One split, mapped into memory.

    Attributes:
        tokens: uint16 or uint32 [tokens].
        documents: uint64 [documents + 1], where each document starts, and the end.
        sentences: uint64 [sentences + 1], where each sentence starts, and the end.
    """

    tokens: np.ndarray
    documents: np.ndarray
    sentences: np.ndarray


class Corpus:
    """A prepared corpus.

    Attributes:
        path: its folder.
        manifest: the facts of manifest.json.
        tokenizer: what made its tokens.
        train, validation: its splits, disjoint by document.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], tokenizer: Tokenizer, splits: list[Split]) -> None:
        self.path = path
        self.manifest = manifest
        self.tokenizer = tokenizer
        self.train, self.validation = splits

    @classmethod
    def open(cls, path: str | Path) -> Corpus:
        """Map a prepared corpus into memory, every byte verified.

        Raises:
            EvergraftError: the folder is missing, torn, changed, or of another format.
        """
        path = Path(path)
        if not path.is_dir():
            raise EvergraftError(
                f"corpus {path} does not exist; make it with: evergraft corpus prepare ... --output {path}"
            )
        manifest = verify_manifest(path)
        if manifest.get("format") != FORMAT:
            raise EvergraftError(
                f"corpus {path} has format {manifest.get('format')}, expected {FORMAT}; prepare it anew"
            )
        dtype = np.dtype(manifest["token_dtype"])
        splits = [
            Split(
                _map(path / split / "tokens.bin", dtype),
                _offsets(path / split / "documents.bin", manifest["splits"][split]["tokens"]),
                _offsets(path / split / "sentences.bin", manifest["splits"][split]["tokens"]),
            )
            for split in SPLITS
        ]
        return cls(path, manifest, Tokenizer.from_file(str(path / TOKENIZER)), splits)

    @property
    def vocabulary_size(self) -> int:
        """The number of token ids."""
        return int(self.manifest["vocabulary_size"])

    @property
    def unigram_entropy(self) -> float:
        """The entropy of the training tokens' distribution, nats: what guessing without context comes to."""
        return float(self.manifest["unigram_entropy"])

    @cached_property
    def special_ids(self) -> SpecialIds:
        """The ids of the special tokens."""
        return special_ids(self.tokenizer)

    @cached_property
    def continuation(self) -> np.ndarray:
        """For each token id, bool [vocabulary]: does the piece continue a word, as `##ing` does?"""
        pieces = [self.tokenizer.id_to_token(index) or "" for index in range(self.vocabulary_size)]
        return np.array([piece.startswith("##") for piece in pieces])

    def transformers_tokenizer(self) -> Any:
        """The tokenizer as transformers has it; its `save_pretrained` writes what AutoTokenizer loads."""
        from transformers import PreTrainedTokenizerFast

        names = {f"{name}_token": f"[{name.upper()}]" for name in SPECIAL_TOKENS}
        inputs = ["input_ids", "token_type_ids", "attention_mask"]
        return PreTrainedTokenizerFast(tokenizer_object=self.tokenizer, model_input_names=inputs, **names)  # type: ignore[no-untyped-call]

    def summary(self) -> dict[str, Any]:
        """What `evergraft corpus prepare` reports."""
        facts = ("sources", "vocabulary_size", "sequence_length", "unigram_entropy", "splits")
        return {"corpus": str(self.path)} | {name: self.manifest[name] for name in facts}


def special_ids(tokenizer: Tokenizer) -> SpecialIds:
    """The ids of the special tokens.

    Raises:
        EvergraftError: one is not in the vocabulary.
    """
    ids = {name: tokenizer.token_to_id(f"[{name.upper()}]") for name in SPECIAL_TOKENS}
    missing = [f"[{name.upper()}]" for name, index in ids.items() if index is None]
    if missing:
        raise EvergraftError(
            f"the tokenizer's vocabulary lacks {', '.join(missing)}; expected a BERT WordPiece vocabulary"
        )
    return SpecialIds(**{name: index for name, index in ids.items() if index is not None})


def entropy(counts: np.ndarray) -> float:
    """The entropy of a distribution given as counts, nats."""
    shares = counts[counts > 0] / counts.sum()
    return -math.fsum(shares * np.log(shares))


def _map(path: Path, dtype: np.dtype[Any]) -> np.ndarray:
    if path.stat().st_size == 0:
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, "r"))  # a plain array: slicing a memmap takes ten times as long


def _offsets(path: Path, tokens: int) -> np.ndarray:
    offsets = _map(path, OFFSET)
    if len(offsets) < 1 or offsets[0] != 0 or offsets[-1] != tokens:
        raise EvergraftError(f"{path} is damaged: its offsets must run from 0 to {tokens}, the number of tokens")
    return offsets


__all__ = ["MANIFEST", "Corpus", "SpecialIds", "Split", "entropy", "special_ids"]
