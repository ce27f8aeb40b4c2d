"""Cells that several tables have."""

from __future__ import annotations

from evergraft.study.statistics import Estimate


def nats(difference: Estimate | None) -> str:
    """A difference of losses, with its interval; a dash where there is none."""
    return "-" if difference is None else difference.text(4)


def seeds(*estimates: Estimate | None) -> str:
    """How many seeds there are in estimates over the same seeds; a dash where there is no estimate."""
    return next((str(one.seeds) for one in estimates if one is not None), "-")


def at_equal(estimate: Estimate | None, digits: int = 3) -> str:
    """A comparison with the dense family at equal loss or cost; words say where no dense models lie on both sides."""
    return "not between dense models" if estimate is None else estimate.text(digits)
