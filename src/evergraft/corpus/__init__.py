"""Text to a prepared corpus: tokenised once, split by document, mapped into memory."""

from evergraft.corpus.corpus import Corpus, SpecialIds, Split
from evergraft.corpus.preparation import prepare, prepared
from evergraft.corpus.sources import documents

__all__ = ["Corpus", "SpecialIds", "Split", "documents", "prepare", "prepared"]
