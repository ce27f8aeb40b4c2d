"""Where and with what a run was made, as a typed record: environment.json."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from evergraft import __version__
from evergraft.runs.record import StoredRecord

PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "numpy", "safetensors")


class Environment(StoredRecord):
    """The command, the machine and the versions that a figure must be read with.

    Example:
        >>> Environment.here().threads
        2
    """

    command: list[str] = Field(description="the command line, as in sys.argv")
    commit: str | None = Field(
        description="of evergraft's sources, ending in -dirty if they differ from it; None outside a git checkout"
    )
    python: str = Field(description="version of Python")
    platform: str = Field(description="operating system and architecture")
    processor: str = Field(description="model name of the CPU")
    cpu_capability: str = Field(description="the instruction set that torch uses, such as AVX512")
    threads: int = Field(description="CPU threads of torch, on which the last bits of sums depend")
    gpu: str | None = Field(description="name of the GPU; None without one")
    versions: dict[str, str] = Field(description="of evergraft and of the packages it computes with")

    @classmethod
    def here(cls, **facts: Any) -> Self:
        """The environment of this process.

        Args:
            **facts: the fields that a subclass adds.
        """
        import torch

        return cls(
            command=sys.argv,
            commit=_commit(),
            python=platform.python_version(),
            platform=platform.platform(),
            processor=_processor(),
            cpu_capability=torch.backends.cpu.get_cpu_capability(),
            threads=torch.get_num_threads(),
            gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            versions={"evergraft": __version__} | {name: version(name) for name in PACKAGES},
            **facts,
        )


class RunEnvironment(Environment):
    """The environment of a pre-training run, and what the run read from outside its folder."""

    corpus: str = Field(description="the folder of the prepared corpus")
    corpus_identity: str = Field(description="hash of the corpus")
    model_identity: str | None = Field(None, description="hash of the model's config.json; None for a named model")
    device: str | None = Field(None, description="the kind of device that the run began on: cpu or cuda")


def _commit() -> str | None:
    """The commit of the repository that tracks this file; a repository that it was merely installed in is another."""
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
