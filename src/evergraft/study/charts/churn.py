"""The removed-new ratio over the steps of training."""

from __future__ import annotations

import plotly.graph_objects as go

from evergraft.study.charts._over_time import over_time
from evergraft.study.collection import Collection
from evergraft.study.sections import Part


def churn(collection: Collection) -> list[go.Figure]:
    """The share of the blocks grown by one update that the next one pruned; no chart without an evolving run."""
    return over_time(collection, lambda update: update.removed_new_ratio, "removed-new ratio")


CHART = Part("exploration", churn, place=1)
