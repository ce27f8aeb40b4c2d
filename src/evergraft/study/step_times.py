"""Training steps that were timed alone by `evergraft bench step`, for runs whose own seconds cannot be compared.

Runs of a study share their machine with each other, or were made on several. A bench times all steps in one process,
interleaved, and takes the fastest of each.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from evergraft.bench.records import LEAN, read
from evergraft.errors import EvergraftError
from evergraft.study.record import RunRecord

FASTEST = "the fastest lean dense"  # beside the rivals that were timed: of each model whichever is fastest


class Step(NamedTuple):
    """What was timed.

    Attributes:
        model: the model's name, or that of its config.json without the ending.
        kind: a rival, such as `lean dense`, or the shape of the blocks, such as `16x1`.
        precision: `fp32` or `bf16`.
        density: the share of weights that exist, to four places; 1 for a rival.
        batch_size, sequence_length: sequences in a step, and tokens in a sequence.
    """

    model: str
    kind: str
    precision: str
    density: float
    batch_size: int
    sequence_length: int


@dataclass(frozen=True)
class StepTimes:
    """The steps in a file of results of `evergraft bench step`.

    Attributes:
        machine: what they were timed on.
        steps: seconds of each step.
        updates: seconds of a topology update, for each sparse step.

    Example:
        >>> times = StepTimes.read(Path("benchmarks/results/step-proxy.json"))
        >>> times.rivals
        ('lean dense fp32', 'lean dense (oneDNN) fp32', 'lean dense bf16')
    """

    machine: str
    steps: Mapping[Step, float]
    updates: Mapping[Step, float]

    @classmethod
    def read(cls, file: Path) -> StepTimes:
        """Read the results in a file; of each model those of the commit that was measured last.

        Of several times of one step the fastest counts, for noise only adds to a time.

        Raises:
            EvergraftError: there is no such file, it holds no results of `evergraft bench step`, a result is torn, or
                they come from several machines or numbers of threads.
        """
        if not file.is_file():
            raise EvergraftError(f"there is no file {file}; write one with: evergraft bench step --output {file}")
        results = read(file)
        try:
            newest = {result["model"]: _commit(result) for result in results}
            counted = [result for result in results if _commit(result) == newest[result["model"]]]
            machines = sorted({_machine(result) for result in counted})
            steps: dict[Step, float] = defaultdict(lambda: math.inf)
            updates: dict[Step, float] = defaultdict(lambda: math.inf)
            for result in counted:
                _add(result, steps, updates)
        except (KeyError, TypeError, ValueError, AttributeError):
            machines = []
        if not machines:
            raise EvergraftError(f"{file} holds no results of `evergraft bench step`, or a torn one; name another file")
        if len(machines) > 1:
            raise EvergraftError(
                f"{file} holds steps of {len(machines)} machines, whose times are not compared: {'; '.join(machines)}; "
                "keep a file for each"
            )
        return cls(machines[0], dict(steps), dict(updates))

    @property
    def rivals(self) -> tuple[str, ...]:
        """The lean dense steps that were timed, each by its name and precision."""
        names = {f"{step.kind} {step.precision}": None for step in self.steps if _is_lean(step)}
        return tuple(names)

    def seconds(self, record: RunRecord, rival: str) -> float | None:
        """What training would take if every step were as fast as the one timed.

        Args:
            record: the run. Of a dense one the rival's step counts; of a sparse one its own in the rival's precision,
                with its topology updates.
            rival: one of `rivals`, or `FASTEST`, which takes of each run the fastest step in any precision.

        Returns:
            Seconds; None if no such step was timed.
        """
        dense = record.recipe.is_dense
        candidates = [
            self._training(step, record)
            for step in self.steps
            if _is_of(step, record) and (_is_lean(step) if dense else step.density < 1) and _fits(step, rival, dense)
        ]
        return min(candidates, default=None)

    def _training(self, step: Step, record: RunRecord) -> float:
        updates = record.recipe.updates_or_default if step in self.updates else 0
        return self.steps[step] * record.result.steps + self.updates.get(step, 0.0) * updates


def _add(result: dict[str, Any], steps: dict[Step, float], updates: dict[Step, float]) -> None:
    """Take over the sparse steps of a result, and the dense ones beside them."""
    model, shape = Path(result["model"]).stem, (result["batch_size"], result["sequence_length"])
    for measured in result.get("results", [result]):
        step = Step(model, measured["block"], result["precision"], round(measured["density"], 4), *shape)
        steps[step] = min(steps[step], float(measured["seconds"]))
        if "topology_update" in measured:
            updates[step] = min(updates[step], float(measured["topology_update"]["seconds"]))
        for name, rival in measured["rivals"].items():
            kind, precision = name.rsplit(" ", 1)
            dense = Step(model, kind, precision, 1.0, *shape)
            steps[dense] = min(steps[dense], float(rival["seconds"]))


def _is_lean(step: Step) -> bool:
    return step.kind.startswith(LEAN)


def _is_of(step: Step, record: RunRecord) -> bool:
    """Whether a step is one of the run, or of the run's model if the step is dense."""
    recipe = record.recipe
    block = f"{recipe.block[0]}x{recipe.block[1]}"
    return (
        (step.model, step.batch_size, step.sequence_length)
        == (Path(recipe.model).stem, recipe.batch_size, recipe.sequence_length)
        and step.density == round(record.result.density, 4)
        and (recipe.is_dense or step.kind == block)
    )


def _fits(step: Step, rival: str, dense: bool) -> bool:
    """Whether a step stands for a run in the comparison with a rival."""
    if rival == FASTEST:
        return True
    kind, precision = rival.rsplit(" ", 1)
    return step.precision == precision and (not dense or step.kind == kind)


def _commit(result: dict[str, Any]) -> str:
    """The commit of a result; the command that wrote the results before it left the tree `-dirty`."""
    return str(result["machine"]["commit"]).removesuffix("-dirty")


def _machine(result: dict[str, Any]) -> str:
    machine = result["machine"]
    device = machine["gpu"] or f"{machine['processor']} ({machine['cpu_capability']})"
    return f"{device}, {result['threads']} threads"
