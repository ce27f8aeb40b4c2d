"""The losses that the paper published (docs/method.md, section 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PublishedTable:
    """One table of the paper: validation MLM losses in nats after 10 epochs of Wikipedia and books.

    Attributes:
        title: what it shows.
        by: the facts that its rows vary.
        rows: the loss for each combination of values of those facts.
        fixed: facts that a configuration must share to be compared with the table. The model's size and the length of
            training are not among them, because what is compared is the order.
    """

    title: str
    by: tuple[str, ...]
    rows: Mapping[tuple[Any, ...], float]
    fixed: Mapping[str, Any]


PUBLISHED = (
    PublishedTable(
        "Dense, by size", ("model",), {("mini",): 2.606, ("small",): 2.310, ("medium",): 2.115, ("base",): 1.843},
        {"family": "dense"},
    ),
    PublishedTable(
        "Base, dynamic, density 0.1, by block", ("block",),
        {("1x1",): 2.160, ("4x4",): 2.272, ("8x8",): 2.295, ("16x16",): 2.311}, {"family": "dynamic", "density": 0.1},
    ),
    PublishedTable(
        "Medium, dynamic, density 0.1, by block", ("block",),
        {("1x1",): 2.408, ("4x4",): 2.546, ("8x8",): 2.591, ("16x16",): 2.621}, {"family": "dynamic", "density": 0.1},
    ),
    PublishedTable(
        "Medium, static, by density", ("density",), {(0.75,): 2.186, (0.5,): 2.283, (0.25,): 2.446, (0.1,): 2.648},
        {"family": "static"},
    ),
    PublishedTable(
        "Small, static, by density", ("density",),
        {(0.75,): 2.390, (0.5,): 2.485, (0.25,): 2.637, (0.1,): 2.829, (0.01,): 3.244}, {"family": "static"},
    ),
    PublishedTable(
        "Medium, density 0.1, 1x1: static against dynamic", ("family",),
        {("static",): 2.648, ("dynamic",): 2.408}, {"density": 0.1, "block": "1x1"},
    ),
    PublishedTable(
        "Medium, dynamic, density 0.1, 1x1, by number of updates", ("updates",),
        {(40,): 2.468, (80,): 2.430, (160,): 2.409, (320,): 2.419},
        {"family": "dynamic", "density": 0.1, "block": "1x1", "prune_ratio": 0.5},
    ),
    PublishedTable(
        "Medium, dynamic, density 0.1, 16x16, by number of updates", ("updates",),
        {(40,): 2.616, (80,): 2.606, (160,): 2.633, (320,): 2.645},
        {"family": "dynamic", "density": 0.1, "block": "16x16", "prune_ratio": 0.5},
    ),
    PublishedTable(
        "Medium, dynamic, density 0.1, 1x1, by pruning ratio", ("prune_ratio",),
        {(0.25,): 2.439, (0.5,): 2.413, (0.75,): 2.411, (1.0,): 2.459},
        {"family": "dynamic", "density": 0.1, "block": "1x1"},
    ),
    PublishedTable(
        "Medium, dynamic, density 0.1, 16x16, by pruning ratio", ("prune_ratio",),
        {(0.25,): 2.648, (0.5,): 2.633, (0.75,): 2.634, (1.0,): 2.675},
        {"family": "dynamic", "density": 0.1, "block": "16x16"},
    ),
    PublishedTable(
        "Medium, dynamic, density 0.1, 16x16, by block norm (middle of the published range)", ("prune_by",),
        {("l1",): 2.609, ("l2",): 2.619, ("linf",): 2.6345}, {"family": "dynamic", "density": 0.1, "block": "16x16"},
    ),
    PublishedTable(
        "Medium, dynamic, density 0.01, by pruning ratio", ("prune_ratio",),
        {(0.1,): 2.999, (0.25,): 2.939, (0.5,): 2.889, (0.75,): 2.872}, {"family": "dynamic", "density": 0.01},
    ),
)  # fmt: skip
PUBLISHED_FLOP_RATIOS = "Base: 0.48 to 0.5 for 1x1, 0.83 for 16x16"
