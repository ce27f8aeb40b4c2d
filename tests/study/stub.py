"""A stub that stands for `evergraft pretrain`: it does what it is told in a run's folder, in no time."""

from __future__ import annotations

STUB = """
import json, pathlib, signal, sys, time
folder, behaviour = pathlib.Path(sys.argv[1]), sys.argv[2]
folder.mkdir(exist_ok=True)
(folder / "recipe.yaml").write_text("{}")
(folder / "began").open("a").write("x")
if behaviour == "fail":
    sys.exit("error: the loss is nan; training has diverged")
if behaviour == "die":
    signal.raise_signal(signal.SIGKILL)
if behaviour == "wait":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    time.sleep(30)
time.sleep(0.3)
(folder / "result.json").write_text(sys.argv[3])
"""
SIZES = {"weights": 1, "gradients": 1, "optimizer": 2, "indices": 0}
RESULT = {
    "steps": 100,
    "tokens": 100,
    "seconds": 1.0,
    "flops_total": 1.0,
    "bytes": SIZES,
    "bytes_dense": SIZES,
    "density": 1.0,
    "explored": None,
    "removed_new_ratio": None,
    "validation_mlm_loss": 2.0,
    "validation_nsp_loss": 0.7,
}


def states(statuses) -> list[str]:
    """The state of each status."""
    return [status.state for status in statuses]
