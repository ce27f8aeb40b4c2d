"""A run's folder, and what is in it: recipe, environment, metrics, checkpoints, model, result."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from evergraft import __version__
from evergraft.errors import EvergraftError
from evergraft.files.folders import read_object, verify_manifest, write_atomically
from evergraft.runs.checkpoint import PREFIX, checkpoints, verify_checkpoint
from evergraft.runs.recipe import Recipe, load_recipe

RECIPE, ENVIRONMENT, RESULT, MODEL = "recipe.yaml", "environment.json", "result.json", "model"
PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "numpy", "safetensors")


class Sizes(BaseModel):
    """Bytes of the encoder's linear layers in training."""

    model_config = ConfigDict(strict=True)

    weights: NonNegativeInt
    gradients: NonNegativeInt
    optimizer: NonNegativeInt
    indices: NonNegativeInt


class Figures(BaseModel):
    """What a result must hold; without it, it is torn."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    steps: PositiveInt
    tokens: PositiveInt
    seconds: NonNegativeFloat
    flops_total: PositiveFloat
    bytes: Sizes
    bytes_dense: Sizes
    density: PositiveFloat
    explored: NonNegativeFloat | None
    removed_new_ratio: NonNegativeFloat | None
    validation_mlm_loss: PositiveFloat
    validation_nsp_loss: NonNegativeFloat


class Run:
    """The folder of one run (docs/design.md, "A run's folder").

    Attributes:
        folder: where it is.
        recipe: what it does, fully resolved.
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder = folder
        self.recipe = recipe

    @classmethod
    def create(cls, folder: Path, recipe: Recipe, inputs: Mapping[str, str | None]) -> Run:
        """Make the folder with recipe.yaml and environment.json in it.

        Args:
            inputs: what the run gets from elsewhere, for environment.json: `corpus`, the folder it was prepared in,
                `corpus_identity` and `model_identity`, hashes to know it by, and `device`, the kind it trains on.

        Raises:
            EvergraftError: it exists already and is not empty.
        """
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise EvergraftError(
                f"output {folder} exists already; choose another --output, or continue that run with --resume {folder}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / ENVIRONMENT, json.dumps(environment() | dict(inputs), indent=1))
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
        return cls(folder, load_recipe(folder / RECIPE, {}))

    @property
    def identity(self) -> str:
        """Tells this run's checkpoints from those of other recipes and other text."""
        recipe = (self.folder / RECIPE).read_text(encoding="utf-8")  # as written: later versions know more
        return hashlib.sha256((recipe + self.environment["corpus_identity"]).encode()).hexdigest()[:16]

    @property
    def environment(self) -> dict[str, Any]:
        """What environment.json holds.

        Raises:
            EvergraftError: it is missing or torn.
        """
        try:
            facts = json.loads((self.folder / ENVIRONMENT).read_text(encoding="utf-8"))
            return {"corpus": facts["corpus"], "corpus_identity": facts["corpus_identity"], **facts}
        except (OSError, ValueError, KeyError, TypeError):
            raise EvergraftError(
                f"{self.folder / ENVIRONMENT} is missing or torn; the run cannot be continued"
            ) from None

    @property
    def model_folder(self) -> Path:
        """Where the final model is, every byte that its manifest lists verified.

        Raises:
            EvergraftError: the run has not ended, or the model has changed since.
        """
        folder = self.folder / MODEL
        if not folder.is_dir():
            raise EvergraftError(f"{self.folder} holds no finished model; finish the run with --resume {self.folder}")
        try:
            verify_manifest(folder)
        except EvergraftError as error:
            raise EvergraftError(f"{error}; {self._write_again}") from None
        return folder

    @property
    def result(self) -> dict[str, Any] | None:
        """What the finished run came to; None before its end.

        Raises:
            EvergraftError: it is torn.
        """
        path = self.folder / RESULT
        return read_result(path, self._write_again) if path.exists() else None

    @property
    def _write_again(self) -> str:
        return (
            f"remove {self.folder / RESULT} and have it written again with: evergraft pretrain --resume {self.folder}"
        )

    def finish(self, result: dict[str, Any]) -> None:
        """Write the result: the last thing a run does."""
        write_atomically(self.folder / RESULT, json.dumps(result, indent=1))


def read_result(path: Path, advice: str) -> dict[str, Any]:
    """What a result.json holds.

    Raises:
        EvergraftError: it is torn, or a figure of `Figures` is not what it can be; the sentence ends with the advice.
    """
    result = read_object(path, set(Figures.model_fields), advice)
    try:
        Figures.model_validate(result)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise EvergraftError(f"{path} is torn: {name}: {first['msg']}; got {first['input']!r}; {advice}") from None
    return result


def find_resumable(path: Path) -> tuple[Run, Path | None]:
    """The run to resume and its verified checkpoint, from the run's folder or one checkpoint's.

    Returns:
        The run, and the checkpoint; None if the run was stopped before its first.

    Raises:
        EvergraftError: neither is there, or the checkpoint is torn or foreign.
    """
    if path.name.startswith(PREFIX):
        run, chosen = Run.open(path.parent), path
        if not path.is_dir():
            raise EvergraftError(f"checkpoint {path} does not exist; resume from the run with --resume {path.parent}")
    else:
        run = Run.open(path)
        chosen = (checkpoints(path) or [None])[-1]  # type: ignore[list-item]
    if chosen is not None:
        verify_checkpoint(chosen, run.identity)
    return run, chosen


def environment() -> dict[str, Any]:
    """The machine, the versions, the command: what a figure must be read with.

    `commit` is that of the sources: None outside a git checkout, ending in `-dirty` where they differ from it.
    """
    return {
        "command": sys.argv,
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {"evergraft": __version__} | {name: version(name) for name in PACKAGES},
    }


def _commit() -> str | None:
    """Of the repository that these sources are a part of, not of one that they were only installed in."""
    git = ["git", "-C", str(Path(__file__).parent)]
    describe = ["describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", __file__], capture_output=True, check=True)
        return subprocess.run([*git, *describe], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
