"""Explored degrees of freedom over the steps of training."""

from __future__ import annotations

import plotly.graph_objects as go

from evergraft.study.charts._over_time import over_time
from evergraft.study.collection import Collection
from evergraft.study.sections import Part


def exploration(collection: Collection) -> list[go.Figure]:
    """The share of weights that were ever active, after each update; no chart without an evolving run."""
    return over_time(collection, lambda update: update.explored, "explored degrees of freedom")


CHART = Part("exploration", exploration)
