"""Every path that attention may take computes attention: native, batched products, SDPA."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from evergraft.bench.timing import torch_threads
from evergraft.kernels import attention as module
from evergraft.kernels import dropout as dropout_module
from evergraft.kernels.native import runnable_tiers
from evergraft.kernels.slices import joined
from tests.kernels.operations import Attending
from tests.kernels.philox import kept


def tensors(dtype):
    return [torch.randn(3, 16, 2, 8, dtype=dtype).transpose(1, 2).requires_grad_() for _ in range(3)]


@pytest.mark.parametrize("scaling", [None, 0.3])
def test_products_equal_sdpa(scaling):
    inputs = tensors(torch.bfloat16)
    mixed, none = module.attention(Attending(), *inputs, None, scaling=scaling)
    assert none is None
    wide = [tensor.detach().double().requires_grad_() for tensor in inputs]
    expected = F.scaled_dot_product_attention(*wide, scale=scaling).transpose(1, 2)
    torch.testing.assert_close(mixed.double(), expected, rtol=0, atol=0.02)
    grad = torch.randn_like(expected)
    ours, theirs = torch.autograd.grad(mixed, inputs, grad.bfloat16()), torch.autograd.grad(expected, wide, grad)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0, atol=0.05)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_processor_without_bf16_computes_in_fp32(monkeypatch, dropout):
    monkeypatch.setattr(module, "multiplies_bf16", lambda: False)
    inputs = tensors(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(0)
        mixed, _ = module.attention(Attending(), *inputs, None, dropout=dropout)
    torch.manual_seed(0)
    expected, _ = module.attention(Attending(), *(tensor.float() for tensor in inputs), None, dropout=dropout)
    assert torch.equal(mixed, expected.bfloat16())


def reference(query, key, value, scale, mask):
    """Attention of [batch, heads, length, size], its probabilities times `mask` -> [batch, length, heads, size]."""
    probabilities = (query @ key.transpose(-1, -2) * scale).softmax(-1)
    return ((probabilities * mask) @ value).transpose(1, 2)


def attention_mask(shape, seed, dropped):
    """The factors of the probabilities under native dropout, of which each row draws its bits in groups of 128."""
    batch, heads, length, _ = shape
    groups = -(-length // 128) * 128
    mask = kept((batch, heads, length, groups), seed, dropped)[..., :length]
    return mask / (1 - dropped / 2**16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize(
    "shape", [(2, 2, 128, 64), (3, 4, 32, 64), (1, 2, 37, 16), (2, 1, 150, 48), (1, 1, 1, 128), (0, 2, 4, 16)], ids=str
)
@pytest.mark.parametrize("tier", runnable_tiers())
def test_native_attention_is_attention(tier, shape, dropout, dtype, monkeypatch):
    monkeypatch.setenv("EVERGRAFT_CPU_TIER", tier)
    monkeypatch.setattr(dropout_module, "draw_seed", lambda: 5)
    inputs = [torch.randn(shape).to(dtype).requires_grad_() for _ in range(3)]
    wide = [tensor.detach().double().requires_grad_() for tensor in inputs]
    mask = attention_mask(shape, 5, 6554) if dropout else torch.ones(())
    got, _ = module.attention(Attending(), *inputs, None, dropout=dropout)
    expected = reference(*wide, shape[-1] ** -0.5, mask)
    assert got.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=tolerance)
    grad = torch.randn_like(got)
    ours, theirs = torch.autograd.grad(got, inputs, grad), torch.autograd.grad(expected, wide, grad.double())
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0, atol=tolerance)


def slices(shape, dtype):
    """Queries, keys and values [batch, heads, length, size] that are slices of one tensor, which is returned too."""
    batch, heads, length, size = shape
    whole = torch.randn(batch, length, 3 * heads * size, dtype=dtype, requires_grad=True)
    parts = whole.split(heads * size, -1)
    return whole, [part.view(batch, length, heads, size).transpose(1, 2) for part in parts]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(2, 2, 128, 64), (1, 2, 37, 16), (3, 1, 5, 48), (2, 3, 1, 32)], ids=str)
@pytest.mark.parametrize("tier", runnable_tiers())
def test_slices_are_attended_where_they_lie(tier, shape, dropout, dtype, monkeypatch):
    monkeypatch.setenv("EVERGRAFT_CPU_TIER", tier)
    _, parts = slices(shape, dtype)
    copies = [part.detach().clone().requires_grad_() for part in parts]
    assert module._laid_out(*(part.transpose(1, 2) for part in parts))[0].stride == 3 * shape[1] * shape[3]
    results = []
    for inputs in (parts, copies):
        torch.manual_seed(0)
        mixed, _ = module.attention(Attending(), *inputs, None, dropout=dropout)
        grad = torch.randn(mixed.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        results.append((mixed, *torch.autograd.grad(mixed, inputs, grad)))
    assert all(map(torch.equal, *results))
    gradients = [gradient.transpose(1, 2).flatten(2) for gradient in results[0][1:]]
    assert torch.equal(joined(gradients), torch.cat(gradients, -1))


def test_a_hook_may_keep_slices_elsewhere():
    whole, parts = slices((2, 2, 9, 16), torch.float32)
    mixed, _ = module.attention(Attending(), *parts, None)
    (expected,) = torch.autograd.grad(mixed.sin().sum(), whole)
    with torch.autograd.graph.save_on_cpu():
        mixed, _ = module.attention(Attending(), *parts, None)
    (got,) = torch.autograd.grad(mixed.sin().sum(), whole)
    assert torch.equal(got, expected)


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 140), st.sampled_from([16, 32, 48, 64, 80])),
    scale=st.floats(-2, 2).filter(bool),
    sharpness=st.sampled_from([0.01, 1.0, 30.0]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 2**31),
)
def test_any_attention(shape, scale, sharpness, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = [(torch.randn(shape, generator=generator) * size).to(dtype) for size in (sharpness, 1.0, 1.0)]
    got, _ = module.attention(Attending(), *inputs, None, scaling=scale)
    expected = reference(*(tensor.double() for tensor in inputs), scale, torch.ones(()))
    tolerance = 1e-5 if dtype == torch.float32 else 0.03
    # fp32 holds a score of 1000 to four decimals
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=tolerance * max(1.0, sharpness))


@pytest.mark.skipif(not runnable_tiers(), reason="no native library was built")
def test_which_tensors_native_attention_takes():
    whole = torch.randn(2, 3, 16, 32)
    assert module._native_takes(whole, whole, whole)
    assert not module._native_takes(whole, whole[:, :, :8], whole[:, :, :8])  # of other lengths
    assert not module._native_takes(*[whole[..., :20]] * 3)
    assert module._native_takes(*[whole.bfloat16()] * 3)
    assert not module._native_takes(whole, whole, whole.bfloat16())
    assert not module._native_takes(*[whole.double()] * 3)


@pytest.mark.parametrize("threads", [2, 3])
def test_attention_does_not_depend_on_threads(threads):
    inputs = [torch.randn(2, 3, 40, 32, requires_grad=True) for _ in range(3)]

    def run():
        torch.manual_seed(0)
        mixed, _ = module.attention(Attending(), *inputs, None, dropout=0.2)
        return mixed, *torch.autograd.grad(mixed.square().sum(), inputs)

    with torch_threads(1):
        expected = run()
    with torch_threads(threads):
        assert all(map(torch.equal, run(), expected))


def test_a_nan_stays_in_its_token_and_head():
    query, key, value = (torch.randn(1, 2, 40, 16) for _ in range(3))
    query[0, 1, 3, 5] = torch.nan
    mixed, _ = module.attention(Attending(), query, key, value, None)
    assert mixed.isnan().all(-1)[0].nonzero().tolist() == [[3, 1]]
    assert mixed.isnan().sum() == 16


def test_dropout_drops_probabilities():
    query, key, _ = tensors(torch.float32)
    torch.manual_seed(0)
    mixed, _ = module.attention(Attending(), query, key, torch.ones_like(key), None, dropout=0.5)
    assert mixed.std() > 0.05  # the probabilities of a token no longer sum to one
    assert mixed.mean().item() == pytest.approx(1, abs=0.1)
