"""Dense fp32 products by oneDNN, where torch would take MKL."""

from __future__ import annotations

import torch
from torch import Tensor


def has_onednn() -> bool:
    """Whether this torch can be made to multiply on the CPU with oneDNN, in fp32 too."""
    return hasattr(torch.ops.mkldnn, "_linear_pointwise")


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear` on the CPU, by oneDNN in fp32 too; not differentiable.

    torch itself multiplies in fp32 by MKL, which on AMD stays on AVX2; oneDNN uses AVX-512 on every processor that has
    it, and is twice as fast there.

    Args:
        x: [tokens, in], of any strides.
        weight: [out, in], of any strides.
        bias: [out].

    Returns:
        [tokens, out].
    """
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y
