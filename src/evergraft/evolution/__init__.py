"""How a topology changes during training."""

from evergraft.evolution.group_lasso import apply_group_lasso
from evergraft.evolution.schedule import UpdateSchedule
from evergraft.evolution.updater import LayerUpdate, TopologyUpdater

__all__ = ["LayerUpdate", "TopologyUpdater", "UpdateSchedule", "apply_group_lasso"]
