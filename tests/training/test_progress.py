"""The progress bar."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from evergraft.training.budget import Budget
from evergraft.training.progress import ProgressBar


def test_the_terminal_is_given_back_whatever_happens():
    bar = ProgressBar(Budget(10, None))

    def fail():
        with bar.shown():
            bar.on_train_begin(None, SimpleNamespace(global_step=0), None)
            assert bar.bar.live.is_started
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not bar.bar.live.is_started
