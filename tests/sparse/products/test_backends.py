"""Which backend computes a product: the one that is named, or by `auto` the newest that can."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from evergraft import EvergraftError
from evergraft.sparse.products import BACKENDS, backend_names, check_backend, choose_backend

X, VALUES = torch.randn(2, 4), torch.randn(1, 4, 4)


@pytest.fixture
def registered():
    """A function that registers a backend under a name for the length of a test."""
    names = []

    def register(name, supports):
        products = dict.fromkeys(("forward", "input_gradient", "weight_gradient"))
        backend = SimpleNamespace(name=name, supports=lambda x, values: supports, **products)
        names.append(name)
        return BACKENDS.register(name)(backend)

    yield register
    for name in names:
        BACKENDS.unregister(name)


def test_the_newest_backend_is_tried_first(registered):
    registered("older", supports=True)
    newest = registered("newest", supports=True)
    assert choose_backend("auto", X, VALUES) is newest
    assert backend_names()[0] == "auto"
    assert backend_names()[-2:] == ["older", "newest"]


def test_auto_passes_over_a_backend_that_cannot(registered):
    before = choose_backend("auto", X, VALUES)
    registered("refusing", supports=False)
    assert choose_backend("auto", X, VALUES) is before


def test_a_named_backend_that_cannot_is_an_error(registered):
    registered("refusing", supports=False)
    with pytest.raises(EvergraftError, match=r"backend 'refusing' cannot multiply torch.float32 .* of \(4, 4\)"):
        choose_backend("refusing", X, VALUES)


def test_an_unknown_backend_is_an_error():
    for find in (check_backend, lambda name: choose_backend(name, X, VALUES)):
        with pytest.raises(EvergraftError, match="no backend is called 'fast'; choose one of auto, cpu, dense, gpu"):
            find("fast")


def test_the_reference_takes_what_no_other_can():
    assert choose_backend("auto", X.double(), VALUES.double()).name == "dense"
