"""How many blocks a matrix has room for, and how many of them a density keeps; without torch."""

from __future__ import annotations

from evergraft.errors import EvergraftError

INT32_MAX = 2**31 - 1


def block_grid(out_features: int, in_features: int, block: tuple[int, int]) -> tuple[int, int]:
    """The number of block rows and block columns of a matrix [out_features, in_features].

    Raises:
        EvergraftError: a size below one, a block that is not two numbers or does not divide the matrix, or more than
            2^31 - 1 blocks.
    """
    if not isinstance(block, tuple | list) or len(block) != 2:
        raise EvergraftError(f"a block is its rows and columns, as in (16, 16); got {block!r}")
    shape = f"{block[0]}x{block[1]}"
    if min(out_features, in_features, *block) < 1:
        raise EvergraftError(
            f"matrix and block sizes must be at least 1; got [{out_features}, {in_features}] and {shape}"
        )
    if out_features % block[0] or in_features % block[1]:
        raise EvergraftError(
            f"block {shape} does not divide a weight of {out_features} x {in_features} (out x in); "
            f"choose a block whose rows divide {out_features} and whose columns divide {in_features}"
        )
    rows, columns = out_features // block[0], in_features // block[1]
    if rows * columns > INT32_MAX:
        raise EvergraftError(f"a topology holds at most 2^31 - 1 blocks; got {rows} x {columns}: choose larger blocks")
    return rows, columns


def active_count(positions: int, density: float) -> int:
    """The number of blocks that a density keeps: round(density * positions), at least 1.

    Raises:
        EvergraftError: a density outside (0, 1].
    """
    if not 0 < density <= 1:
        raise EvergraftError(f"density must be above 0 and at most 1 (1 is dense); got {density}")
    return max(1, round(density * positions))
