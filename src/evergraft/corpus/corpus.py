"""A prepared corpus: its folder, and its reader.

The folder holds `manifest.json`, `tokenizer.json`, and a folder for each split, `train` and `validation`, with three
files of little-endian numbers:

- `tokens.bin`: the token ids, uint16 where the vocabulary fits, else uint32;
- `documents.bin`: uint64, the position in the tokens at which each document starts, and the number of tokens;
- `sentences.bin`: uint64, the position in the tokens at which each sentence starts, and the number of tokens.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from evergraft.errors import EvergraftError
from evergraft.files.folders import verify_manifest

FORMAT = 1
TOKENIZER = "tokenizer.json"
SPLITS = ("train", "validation")
_FILES = (TOKENIZER, *(f"{split}/{name}.bin" for split in SPLITS for name in ("tokens", "documents", "sentences")))
OFFSET = np.dtype("<u8")


class SpecialIds(NamedTuple):
    """The token ids of [PAD], [UNK], [CLS], [SEP] and [MASK]."""

    pad: int
    unk: int
    cls: int
    sep: int
    mask: int


SPECIAL_TOKENS = SpecialIds._fields  # in a vocabulary they are written [PAD], [UNK], ...


class Split(NamedTuple):
    """One split of a corpus, mapped into memory.

    Attributes:
        tokens: uint16 or uint32 [tokens].
        documents: uint64 [documents + 1], where in `tokens` each document starts, and where the last one ends.
        sentences: uint64 [sentences + 1], where in `tokens` each sentence starts, and where the last one ends.
    """

    tokens: np.ndarray
    documents: np.ndarray
    sentences: np.ndarray


class Corpus:
    """A prepared corpus.

    Attributes:
        path: its folder.
        manifest: what its manifest.json holds: the settings it was prepared with, and counts.
        tokenizer: the tokenizer that made its tokens.
        train: the split to train on.
        validation: the split to validate on; no document is in both.

    Example:
        >>> corpus = Corpus.open("corpora/docstrings")
        >>> corpus.tokenizer.decode(corpus.train.tokens[:8].tolist())
    """

    def __init__(self, path: Path, manifest: dict[str, Any], tokenizer: Tokenizer, splits: list[Split]) -> None:
        self.path = path
        self.manifest = manifest
        self.tokenizer = tokenizer
        self.train, self.validation = splits

    @classmethod
    def open(cls, path: str | Path) -> Corpus:
        """Verify every byte of a prepared corpus, and map it into memory.

        Args:
            path: the corpus's folder.

        Raises:
            EvergraftError: the folder is missing, torn, changed, or of another format.
        """
        path = Path(path)
        if not path.is_dir():
            raise EvergraftError(
                f"corpus {path} does not exist; make it with: evergraft corpus prepare ... --output {path}"
            )
        manifest = verify_manifest(path, _FILES)
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
        """The entropy of the distribution of training tokens, in nats: the loss of guessing without context."""
        return float(self.manifest["unigram_entropy"])

    @cached_property
    def special_ids(self) -> SpecialIds:
        """The token ids of the special tokens."""
        return special_ids(self.tokenizer)

    @cached_property
    def continuation(self) -> np.ndarray:
        """Whether each token id's piece continues a word, as `##ing` does: bool [vocabulary]."""
        pieces = [self.tokenizer.id_to_token(index) or "" for index in range(self.vocabulary_size)]
        return np.array([piece.startswith("##") for piece in pieces])

    def transformers_tokenizer(self) -> Any:
        """The tokenizer as a `PreTrainedTokenizerFast`, whose `save_pretrained` writes what AutoTokenizer loads."""
        from transformers import PreTrainedTokenizerFast

        names = {f"{name}_token": f"[{name.upper()}]" for name in SPECIAL_TOKENS}
        inputs = ["input_ids", "token_type_ids", "attention_mask"]
        return PreTrainedTokenizerFast(tokenizer_object=self.tokenizer, model_input_names=inputs, **names)  # type: ignore[no-untyped-call]

    def summary(self) -> dict[str, Any]:
        """The facts that `evergraft corpus prepare` prints: folder, sources, sizes and counts."""
        facts = ("sources", "vocabulary_size", "sequence_length", "unigram_entropy", "splits")
        return {"corpus": str(self.path)} | {name: self.manifest[name] for name in facts}


def special_ids(tokenizer: Tokenizer) -> SpecialIds:
    """The token ids of the special tokens in a tokenizer's vocabulary.

    Raises:
        EvergraftError: the vocabulary lacks one.
    """
    ids = {name: tokenizer.token_to_id(f"[{name.upper()}]") for name in SPECIAL_TOKENS}
    missing = [f"[{name.upper()}]" for name, index in ids.items() if index is None]
    if missing:
        raise EvergraftError(
            f"the tokenizer's vocabulary lacks {', '.join(missing)}; expected a BERT WordPiece vocabulary"
        )
    return SpecialIds(**{name: index for name, index in ids.items() if index is not None})


def _map(path: Path, dtype: np.dtype[Any]) -> np.ndarray:
    if path.stat().st_size == 0:
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, "r"))  # as a plain array, for slicing a memmap takes ten times as long


def _offsets(path: Path, tokens: int) -> np.ndarray:
    offsets = _map(path, OFFSET)
    if len(offsets) < 1 or offsets[0] != 0 or offsets[-1] != tokens:
        raise EvergraftError(f"{path} is damaged: its offsets must run from 0 to {tokens}, the number of tokens")
    return offsets
