"""The WordPiece vocabulary of a corpus: learnt from its text, or given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from evergraft.corpus.corpus import SPECIAL_TOKENS, TOKENIZER, special_ids
from evergraft.errors import EvergraftError

LEARNT_FROM = 256 << 20  # characters at most, so that learning is bounded in time and memory
_SPECIAL = [f"[{name.upper()}]" for name in SPECIAL_TOKENS]


def learn_vocabulary(texts: Iterable[str], size: int) -> Tokenizer:
    """Learn a lower-cased WordPiece vocabulary, the special tokens as ids 0 to 4, from the first 256 Mi characters.

    Raises:
        EvergraftError: the text has too few distinct characters or words to be one.
    """
    tokenizer = _bert_tokenizer(models.WordPiece(unk_token="[UNK]"))
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=_SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(_beginning(texts), trainer)
    if tokenizer.get_vocab_size() <= len(_SPECIAL):
        raise EvergraftError("the text holds no words to learn a vocabulary from")
    return _with_pairs(tokenizer)


def load_vocabulary(path: Path) -> Tokenizer:
    """A given tokenizer: a tokenizer.json, a folder that holds one, or a vocab.txt of one piece a line.

    Raises:
        EvergraftError: it is missing, unreadable, or lacks a special token.
    """
    file = path / TOKENIZER if path.is_dir() else path
    if not file.is_file():
        raise EvergraftError(f"tokenizer {path} does not exist; expected a tokenizer.json or a vocab.txt")
    try:
        if file.suffix == ".json":
            tokenizer = Tokenizer.from_file(str(file))
        else:
            tokenizer = _bert_tokenizer(models.WordPiece(_read_pieces(file), unk_token="[UNK]"))
            tokenizer.add_special_tokens(_SPECIAL)
    except Exception as error:
        raise EvergraftError(
            f"tokenizer {file} cannot be read: {error}; expected a tokenizer.json or a vocab.txt"
        ) from None
    try:
        return _with_pairs(tokenizer)
    except EvergraftError as error:
        raise EvergraftError(f"tokenizer {file}: {error}") from None


def _read_pieces(file: Path) -> dict[str, int]:
    pieces = file.read_text(encoding="utf-8").splitlines()
    missing = [piece for piece in _SPECIAL if piece not in pieces]
    if missing:
        raise EvergraftError(f"it lacks {', '.join(missing)}")
    return {piece: index for index, piece in enumerate(pieces)}


def _bert_tokenizer(model: models.WordPiece) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _with_pairs(tokenizer: Tokenizer) -> Tokenizer:
    """Let the tokenizer wrap text as [CLS] A [SEP] B [SEP], for those who use it outside training."""
    ids = special_ids(tokenizer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids.cls), ("[SEP]", ids.sep)],
    )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _beginning(texts: Iterable[str]) -> Iterator[str]:
    left = LEARNT_FROM
    for text in texts:
        if left <= 0:
            return
        left -= len(text)
        yield text
