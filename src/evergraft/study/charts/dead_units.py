"""Units that a topology leaves dead, over the steps of training."""

from __future__ import annotations

import plotly.graph_objects as go

from evergraft.study.charts._over_time import over_time
from evergraft.study.collection import Collection
from evergraft.study.sections import Part


def dead_units(collection: Collection) -> list[go.Figure]:
    """The shares of inputs that no output reads and of outputs that have no input, a chart each after every update.

    There is none where no layer ever left one, as in single weights.
    """
    charts = []
    for name, title in (("unread_columns", "share of inputs unread"), ("empty_rows", "share of outputs without input")):
        if any(getattr(update, name) for record in collection.records for update in record.logged_updates):
            charts += over_time(collection, lambda update, name=name: getattr(update, name), title)  # type: ignore[misc]
    return charts


CHART = Part("exploration", dead_units, place=3)
