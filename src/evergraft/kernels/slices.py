"""Tensors that lie side by side in the memory of a wider one, as the outputs of one product for several layers do."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor

from evergraft.kernels.native import holds_numbers, is_plain


def joined(slices: Sequence[Tensor]) -> Tensor | None:
    """The contiguous tensor of which `slices` are the slices of the last dimension, in order, without a copy.

    What wrote the slices need not know each other, and what reads them can take all in one pass.

    Args:
        slices: at least one tensor [..., n]; n may differ between them.

    Returns:
        [..., sum of n], in the memory of the slices; None if they do not lie so, or their memory does not hold their
        numbers as they are.

    Example:
        >>> whole = torch.randn(2, 5)
        >>> joined(whole.split([2, 3], -1)).shape
        torch.Size([2, 5])
        >>> joined([whole[:, :2].clone(), whole[:, 2:]]) is None
        True
    """
    first = slices[0]
    shape = (*first.shape[:-1], sum(each.shape[-1] for each in slices))
    strides = [prod(shape[dimension + 1 :]) for dimension in range(len(shape))]
    end = first.storage_offset()
    for each in slices:
        if not (
            is_plain(each)
            and holds_numbers(each)
            and (each.dtype, each.shape[:-1], each.storage_offset()) == (first.dtype, shape[:-1], end)
            and each.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
            and all(size < 2 or at == by for size, at, by in zip(each.shape, each.stride(), strides, strict=True))
        ):
            return None
        end += each.shape[-1]
    return first.as_strided(shape, strides)
