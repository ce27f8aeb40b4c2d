"""The sums of the columns of a matrix, the gradient of a bias, on the CPU by a native pass."""

from __future__ import annotations

import ctypes

from torch import Tensor

from evergraft.kernels.native import DTYPES, call, serves


def column_sums(matrix: Tensor) -> Tensor:
    """`matrix.sum(0)`, which on the CPU reads whole cache lines, several rows at a time (native/column_sums.cpp).

    It is for gradients of biases, inside of backward passes: the native pass cannot be differentiated.

    Args:
        matrix: [rows, columns]. Tensors that the native library cannot take go to torch.

    Returns:
        [columns], the dtype of `matrix`; sums are made in fp32 at least.

    Example:
        >>> column_sums(torch.ones(3, 2))
        tensor([3., 3.])
    """
    if not serves(matrix):
        return matrix.sum(0)
    if matrix.stride(1) != 1 or matrix.stride(0) < matrix.shape[1]:
        matrix = matrix.contiguous()
    sums = matrix.new_empty(matrix.shape[1])
    call("column_sums", matrix, matrix.stride(0), sums, *matrix.shape, ctypes.c_int(DTYPES[matrix.dtype]))
    return sums
