"""Fair timing on a machine that is never quite quiet: candidates in turn, the fastest run of each."""

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
    """Let torch use `count` CPU threads for a while; None leaves it as it is."""
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
    """Seconds of the fastest run of each task.

    All tasks run in turn, round after round, so that noise hits all alike.

    Args:
        warm_up: rounds before the first that is timed.
        few: tasks that run in fewer rounds than the others: the first so many.
        before_round: runs before each round, untimed.
        device: `cuda` takes the time on the GPU.
        graphs: on a GPU, replay each task (but those of `few`) from a CUDA graph, as a training step that was captured
            does; so the kernels are timed, not Python's launching of them.
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
    del result  # freed off the clock, for every candidate alike
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
    """The task from a CUDA graph; as it is, with a warning, where it cannot be captured.

    It warms up on the stream that it is captured on, as torch asks for.
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
