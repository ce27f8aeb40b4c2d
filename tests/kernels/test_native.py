"""The bridge to the native library: tiers, what it serves, and how a failure is told."""

from __future__ import annotations

import ctypes

import pytest
import torch

from evergraft import EvergraftError
from evergraft.kernels import native
from evergraft.kernels.native import (
    DTYPES,
    TIERS,
    call,
    check_tier,
    default_tier,
    is_transformed,
    runnable_tiers,
    serves,
)

pytestmark = pytest.mark.skipif(not runnable_tiers(), reason="evergraft was installed without its native library")


def test_the_best_tier_is_the_default(monkeypatch):
    monkeypatch.delenv("EVERGRAFT_CPU_TIER", raising=False)
    assert list(runnable_tiers()) == sorted(runnable_tiers(), key=TIERS.index)
    assert runnable_tiers()[0] == "portable"
    assert default_tier() == runnable_tiers()[-1]


def test_the_environment_names_a_tier(monkeypatch):
    monkeypatch.setenv("EVERGRAFT_CPU_TIER", "portable")
    assert default_tier() == "portable"
    monkeypatch.setenv("EVERGRAFT_CPU_TIER", "sse9")
    with pytest.raises(EvergraftError, match=r"tier 'sse9' .* cannot run here; choose one of portable"):
        default_tier()


def test_without_a_library_nothing_is_served(monkeypatch):
    monkeypatch.delenv("EVERGRAFT_CPU_TIER", raising=False)
    monkeypatch.setattr(native, "runnable_tiers", lambda: ())
    assert default_tier() is None
    assert not serves(torch.ones(3))
    with pytest.raises(EvergraftError, match="choose one of none"):
        check_tier("portable")


def test_what_is_served():
    x = torch.ones(3)
    assert serves(x, x.bfloat16())
    assert not serves(x, x.double())
    assert not serves(x.half())
    assert not serves(x.to("meta"))


def test_transforms_of_torch_func_are_not_served():
    seen = []

    def look(x):
        seen.append((is_transformed(), serves(x)))
        return x

    look(torch.ones(3))
    torch.func.vmap(look)(torch.ones(2, 3))
    assert seen == [(False, True), (True, False)]


def test_a_graph_being_compiled_is_not_served():
    compiled = torch.compile(lambda x: x + 1 if serves(x) else x - 1, fullgraph=True, backend="eager")
    assert compiled(torch.ones(1)).item() == 0


@pytest.mark.parametrize("tier", runnable_tiers())
def test_a_call(tier):
    x = torch.randn(5)
    y = torch.empty_like(x)
    assert call("gelu", x, y, None, x.numel(), ctypes.c_int(DTYPES[x.dtype]), tier=tier) == 0
    torch.testing.assert_close(y, torch.nn.functional.gelu(x))


def test_a_function_without_memory_says_so(monkeypatch):
    monkeypatch.setattr(native, "_function", lambda tier, name: lambda *arguments: native.OUT_OF_MEMORY)
    with pytest.raises(MemoryError, match="the native function forward could not allocate its working memory"):
        call("forward")
