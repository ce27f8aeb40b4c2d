"""Dense products by oneDNN are torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from evergraft.kernels import onednn
from evergraft.kernels.onednn import OneDnnLinear, has_onednn

pytestmark = pytest.mark.skipif(not has_onednn(), reason="this torch cannot be made to use oneDNN")


def test_all_three_products():
    plain, ours = nn.Linear(24, 40), OneDnnLinear(24, 40)
    ours.load_state_dict(plain.state_dict())
    x, grad = torch.randn(3, 5, 24, requires_grad=True), torch.randn(3, 5, 40)
    results = []
    for layer in (plain, ours):
        y = layer(x)
        results.append([y, *torch.autograd.grad(y, [x, layer.weight, layer.bias], grad)])
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_a_processor_without_bf16_instructions_has_no_product_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "multiplies_bf16", lambda: False)
    assert not has_onednn(torch.bfloat16)
    assert has_onednn()
