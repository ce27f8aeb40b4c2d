"""The WordPiece vocabulary of a corpus: learnt from its text, or given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from evergraft.corpus.corpus import SPECIAL_TOKENS, TOKENIZER, special_ids
from evergraft.errors import EvergraftError

LEARNT_FROM = 256 << 20  # characters from which a vocabulary is learnt at most, to bound time and memory
_SPECIAL = [f"[{name.upper()}]" for name in SPECIAL_TOKENS]


def learn_vocabulary(texts: Callable[[], Iterable[str]], size: int) -> Tokenizer:
    """Learn a lower-cased WordPiece vocabulary from the first LEARNT_FROM characters of text.

    The special tokens have the ids 0 to 4. Equal text gives an equal vocabulary. For this the single characters are
    numbered here, and passed to `tokenizers` as if they were special tokens; it would number the pieces `##x` in the
    order of a hash table, and it breaks ties by number.

    Args:
        texts: returns the documents from the first to the last, at every call.
        size: number of pieces in the vocabulary.

    Raises:
        EvergraftError: the text holds no words, or too many characters for a vocabulary of that size.
    """
    tokenizer = _bert_tokenizer(models.WordPiece(unk_token="[UNK]"))
    alphabet = _alphabet(tokenizer, _beginning(texts()))
    fixed = [*_SPECIAL, *alphabet, *(f"##{character}" for character in alphabet)]
    if not alphabet:
        raise EvergraftError("the text holds no words to learn a vocabulary from")
    if len(fixed) >= size:
        raise EvergraftError(
            f"`vocabulary_size` {size} is too small for the {len(alphabet)} characters of the text; "
            f"expected more than {len(fixed)}"
        )
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=fixed,
        limit_alphabet=len(alphabet),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_beginning(texts()), trainer)
    learnt = _bert_tokenizer(models.WordPiece(tokenizer.get_vocab(), unk_token="[UNK]"))
    learnt.add_special_tokens(_SPECIAL)
    return _with_pairs(learnt)


def _alphabet(tokenizer: Tokenizer, texts: Iterable[str]) -> list[str]:
    """The characters that make up more than a millionth of the text, most frequent first; at most a thousand."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(tokenizer.normalizer.normalize_str(text))
    least = counts.total() / 1e6
    ranked = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return [character for character, count in ranked if count > least and not character.isspace()][:1000]


def load_vocabulary(path: Path) -> Tokenizer:
    """Load a tokenizer from a file.

    Args:
        path: a tokenizer.json, a folder that holds one, or a vocab.txt with one piece on each line.

    Raises:
        EvergraftError: it is missing, unreadable, lacks a special token, or does not number its pieces one by one.
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
        tokenizer = _with_pairs(tokenizer)
        _check_ids(tokenizer)
    except EvergraftError as error:
        raise EvergraftError(f"tokenizer {file}: {error}") from None
    return tokenizer


def _check_ids(tokenizer: Tokenizer) -> None:
    last = max(tokenizer.get_vocab().values())
    if last >= tokenizer.get_vocab_size():
        raise EvergraftError(f"{tokenizer.get_vocab_size()} pieces have ids up to {last}; expected every id from 0 on")


def _read_pieces(file: Path) -> dict[str, int]:
    pieces = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    vocabulary: dict[str, int] = {}
    for index, piece in enumerate(pieces):
        if not piece.strip() or piece in vocabulary:
            raise EvergraftError(f"line {index + 1} holds {'the piece of another' if piece.strip() else 'no piece'}")
        vocabulary[piece] = index
    missing = [piece for piece in _SPECIAL if piece not in vocabulary]
    if missing:
        raise EvergraftError(f"it lacks {', '.join(missing)}")
    return vocabulary


def _bert_tokenizer(model: models.WordPiece) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _with_pairs(tokenizer: Tokenizer) -> Tokenizer:
    """Let the tokenizer wrap text as [CLS] A [SEP] B [SEP], for use outside of training."""
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
