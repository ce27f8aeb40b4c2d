"""Preparing text as a corpus, which is tokenised once, split by document, and mapped into memory."""

from evergraft.corpus.cache import is_prepared, prepared
from evergraft.corpus.corpus import Corpus, SpecialIds, Split
from evergraft.corpus.preparation import prepare
from evergraft.corpus.sources import documents

__all__ = ["Corpus", "SpecialIds", "Split", "documents", "is_prepared", "prepare", "prepared"]
