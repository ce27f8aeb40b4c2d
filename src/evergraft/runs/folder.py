"""A run on disk: its folder, with recipe, environment, model and result."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from evergraft.errors import EvergraftError
from evergraft.files.folders import verify_manifest, write_atomically
from evergraft.runs.checkpoint import checkpoints, verify_checkpoint
from evergraft.runs.environment import RunEnvironment
from evergraft.runs.layout import CHECKPOINT, CONFIG, ENVIRONMENT, MODEL, RECIPE, RESULT, WEIGHTS
from evergraft.runs.recipe import Recipe, load_stored_recipe
from evergraft.runs.record import read_record
from evergraft.runs.result import RunResult, read_result


class Run:
    """A pre-training run on disk, finished or not (docs/design.md, "A run's folder").

    Attributes:
        folder: the run's folder.
        recipe: what the run does, with every field resolved.

    Example:
        >>> run = Run.open(Path("runs/tiny-d0.1-16x16-s0"))
        >>> run.recipe.density, run.recipe.block
        (0.1, (16, 16))
        >>> run.finished_result.validation_mlm_loss < run.finished_result.unigram_entropy
        True
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder = folder
        self.recipe = recipe

    @classmethod
    def create(cls, folder: Path, recipe: Recipe, environment: RunEnvironment) -> Run:
        """Make the folder of a new run, with recipe.yaml and environment.json in it.

        Args:
            folder: new, or an empty one.
            recipe: what the run will do, fully resolved.
            environment: where it begins, and what it reads from outside its folder.

        Raises:
            EvergraftError: the folder exists already and is not empty.
        """
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise EvergraftError(
                f"output {folder} exists already; choose another `output`, or continue that run with: "
                f"evergraft pretrain --resume {folder}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / ENVIRONMENT, json.dumps(environment.to_dict(), indent=1))
        write_atomically(folder / RECIPE, recipe.to_yaml())
        return cls(folder, recipe)

    @classmethod
    def open(cls, folder: Path) -> Run:
        """The run in a folder.

        Raises:
            EvergraftError: the folder is missing or holds no run.
        """
        if not (folder / RECIPE).is_file():
            raise EvergraftError(f"{folder} is not a run's folder: it holds no {RECIPE}")
        return cls(folder, load_stored_recipe(folder / RECIPE))

    @property
    def identity(self) -> str:
        """A hash of the recipe and the corpus, by which this run's checkpoints are told from those of other runs."""
        recipe = (self.folder / RECIPE).read_text(encoding="utf-8")  # as written: later versions have more fields
        return hashlib.sha256((recipe + self.environment.corpus_identity).encode()).hexdigest()[:16]

    @property
    def environment(self) -> RunEnvironment:
        """What environment.json holds.

        Raises:
            EvergraftError: it is missing or torn.
        """
        advice = "restore it, or go on without this run"
        return read_record(RunEnvironment, self.folder / ENVIRONMENT, advice)

    @property
    def model_folder(self) -> Path:
        """Where the final model is, after every byte that its manifest lists was verified.

        Raises:
            EvergraftError: the run has not ended, or the model has changed since.
        """
        folder = self.folder / MODEL
        if not folder.is_dir():
            raise EvergraftError(
                f"{self.folder} holds no finished model; finish the run with: evergraft pretrain --resume {self.folder}"
            )
        try:
            verify_manifest(folder, (CONFIG, WEIGHTS))
        except EvergraftError as error:
            raise EvergraftError(f"{error}; {self._write_again}") from None
        return folder

    @property
    def result(self) -> RunResult | None:
        """What the finished run came to; None before its end.

        Raises:
            EvergraftError: it is torn.
        """
        path = self.folder / RESULT
        return read_result(path, self._write_again) if path.exists() else None

    @property
    def finished_result(self) -> RunResult:
        """What the finished run came to.

        Raises:
            EvergraftError: the run has not finished, or its result is torn.
        """
        result = self.result
        if result is None:
            raise EvergraftError(
                f"{self.folder} has not finished; finish it with: evergraft pretrain --resume {self.folder}"
            )
        return result

    @property
    def _write_again(self) -> str:
        return (
            f"remove {self.folder / RESULT} and have it written again with: evergraft pretrain --resume {self.folder}"
        )

    def finish(self, result: RunResult) -> None:
        """Write the result: the last thing a run does."""
        write_atomically(self.folder / RESULT, json.dumps(result.to_dict(), indent=1))


def find_resumable(path: Path) -> tuple[Run, Path | None]:
    """The run to resume and its verified checkpoint, from the run's folder or one checkpoint's.

    Args:
        path: a run's folder, of which the newest checkpoint is taken, or the folder of one of its checkpoints.

    Returns:
        The run, and the checkpoint; None in its place if the run was stopped before its first checkpoint.

    Raises:
        EvergraftError: there is no run or no such checkpoint, or the checkpoint is torn or belongs to another run.
    """
    if path.name.startswith(CHECKPOINT):
        run, chosen = Run.open(path.parent), path
        if not path.is_dir():
            raise EvergraftError(
                f"checkpoint {path} does not exist; resume from the run with: evergraft pretrain --resume {path.parent}"
            )
    else:
        run = Run.open(path)
        chosen = (checkpoints(path) or [None])[-1]  # type: ignore[list-item]
    if chosen is not None:
        verify_checkpoint(chosen, run.identity)
    return run, chosen
