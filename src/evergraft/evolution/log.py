"""The log of topology updates: what `TopologyCallback` calls it, and the line that sums up an update."""

from __future__ import annotations

LOG_FILE = "topology.jsonl"  # in the Trainer's output folder
ALL = "all"  # the layer of the line that sums up an update
