"""Fair timing on a machine that is never quite quiet: candidates run in turn, and the fastest run of each counts."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

Key = TypeVar("Key", bound=Hashable)


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use `count` CPU threads inside the `with`; None leaves their number as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fastest(
    tasks: Mapping[Key, Callable[[], Any]],
    rounds: int,
    *,
    warm_up: int = 1,
    few: Mapping[Key, int] | None = None,
    before_round: Callable[[], Any] = lambda: None,
    device: str = "cpu",
    graphs: bool = False,
) -> dict[Key, float]:
    """Time tasks in turn, round after round, so that noise hits all of them alike.

    Args:
        tasks: calls without arguments, by key.
        rounds: how often each task is timed.
        warm_up: rounds before the first that is timed.
        few: by key, the number of rounds for tasks that are to run in the first few rounds alone.
        before_round: runs before each round, untimed.
        device: with `cuda`, the time is taken on the GPU.
        graphs: on a GPU, replay each task except those of `few` from a CUDA graph, as captured training steps are. This
            times the kernels, and leaves out the time in which Python launches them.

    Returns:
        For each key, the seconds of its fastest run.

    Example:
        >>> fastest({"sum": lambda: sum(range(1000)), "max": lambda: max(range(1000))}, rounds=5).keys()
        dict_keys(['sum', 'max'])
    """
    for task in [*tasks.values()] * warm_up:
        task()
    if graphs and device == "cuda":
        tasks = {key: task if key in (few or {}) else _captured(task) for key, task in tasks.items()}
    seconds = dict.fromkeys(tasks, float("inf"))
    for turn in range(rounds):
        before_round()
        for key, task in tasks.items():
            if turn < (few or {}).get(key, rounds):
                seconds[key] = min(seconds[key], _seconds(task, device))
    return seconds


def _seconds(task: Callable[[], Any], device: str) -> float:
    if device == "cuda":
        return _seconds_on_gpu(task)
    start = time.perf_counter()
    result = task()
    seconds = time.perf_counter() - start
    del result  # every candidate's result is freed after the clock has stopped
    return seconds


def _seconds_on_gpu(task: Callable[[], Any]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    start.record()
    result = task()
    end.record()
    end.synchronize()
    del result
    return float(start.elapsed_time(end)) / 1e3


def _captured(task: Callable[[], Any]) -> Callable[[], Any]:
    """The replay of a task from a CUDA graph; where it cannot be captured, the task itself, with a warning.

    The task runs once before, on the stream on which it is captured, as torch asks for.
    """
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        task()
    torch.cuda.current_stream().wait_stream(stream)
    try:
        with torch.cuda.graph(graph, stream=stream):
            task()
    except RuntimeError as error:
        warnings.warn(f"timed without a CUDA graph, with Python's launching of kernels: {error}", stacklevel=3)
        return task
    return graph.replay
