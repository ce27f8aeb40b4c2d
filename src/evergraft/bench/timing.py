"""Fair timing on a machine that is never quite quiet: candidates in turn, the fastest run of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import torch

Key = TypeVar("Key", bound=Hashable)


def fastest(
    tasks: Mapping[Key, Callable[[], Any]],
    rounds: int,
    *,
    few: Mapping[Key, int] | None = None,
    before_round: Callable[[], Any] = lambda: None,
    device: str = "cpu",
) -> dict[Key, float]:
    """Seconds of the fastest run of each task.

    Every task runs once to warm up, then all run in turn, round after round, so that noise hits all alike.

    Args:
        few: tasks that run in fewer rounds than the others: the first so many.
        before_round: runs before each round, untimed.
        device: `cuda` waits for the GPU around each run.
    """
    for task in tasks.values():
        task()
    seconds = dict.fromkeys(tasks, float("inf"))
    for turn in range(rounds):
        before_round()
        for key, task in tasks.items():
            if turn < (few or {}).get(key, rounds):
                seconds[key] = min(seconds[key], _seconds(task, device))
    return seconds


def _seconds(task: Callable[[], Any], device: str) -> float:
    _wait(device)
    start = time.perf_counter()
    result = task()
    _wait(device)
    seconds = time.perf_counter() - start
    del result  # freed off the clock, for every candidate alike
    return seconds


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
