"""What a run shows while it trains, and how it ends: by its budget, or early by a signal without losing anything."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from evergraft.training.budget import Budget


class ProgressBar(TrainerCallback):
    """A bar on standard error: loss, tokens per second, explored degrees of freedom, time left.

    Args:
        budget: how far the run is.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.bar = Progress(
            TextColumn("step {task.fields[step]}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[facts]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Give the terminal back when the block ends, by an error too."""
        try:
            yield
        finally:
            self.bar.stop()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show the bar."""
        self.task = self.bar.add_task("", total=1.0, step=state.global_step, facts="")
        self.bar.update(self.task, completed=self.budget.progress(state.global_step))
        self.bar.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar."""
        self.bar.update(self.task, completed=self.budget.progress(state.global_step), step=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the figures of the last line of metrics."""
        if logs and "loss" in logs and self.bar.live.is_started:
            formats = {"loss": "loss {:.4f}", "tokens_per_second": "{:,.0f} tokens/s", "explored": "explored {:.3f}"}
            facts = [form.format(logs[name]) for name, form in formats.items() if name in logs]
            self.bar.update(self.task, facts=", ".join(facts))


class BudgetCallback(TrainerCallback):
    """Ends training when the budget is spent, or after a signal; either way everything is saved first.

    Args:
        budget: how long the run is.

    Attributes:
        signal: the signal that came, if one did.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.signal: signal.Signals | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock, unless a resumed run has set it already."""
        if not state.global_step:
            self.budget.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Decide whether to go on."""
        done = self.budget.progress(state.global_step) >= 1
        if done or self.signal:
            control.should_save = True
            control.should_training_stop = True
        if done:
            control.should_log = True
            control.should_evaluate = True

    @contextmanager
    def catching_signals(self) -> Iterator[None]:
        """Within this block, the first Ctrl-C or SIGTERM ends training after the current step; a second one kills.

        Outside the main thread Python does not let signals be handled, and they keep their usual effect.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if self.signal:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.signal = signal.Signals(number)
