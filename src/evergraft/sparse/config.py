"""How a model is sparse, as one record; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from evergraft.errors import EvergraftError
from evergraft.settings import SEEDS, Block, Choices, Settings, parse_block
from evergraft.sparse.allocation import ALLOCATIONS
from evergraft.sparse.initialisation import INITIALISATIONS
from evergraft.sparse.placement import PLACEMENTS
from evergraft.sparse.products import backend_names, check_backend

STACK = ("*.[0-9]*.*",)  # what lies inside a numbered layer of a stack: bert.encoder.layer.0.output.dense
OUTSIDE = ("*embed*", "*pooler*", "*lm_head*", "*classifier*")  # never sparse (docs/method.md, section 1)
INITIAL_STD = 0.02  # BERT's; the paper found that rescaling it for sparsity is worse (docs/method.md, section 2)


class Override(Settings):
    """A density or a block of their own for the layers whose names match a pattern.

    Attributes:
        density: share of the blocks that exist, in (0, 1]; None keeps the model's.
        block: rows and columns of a block; None keeps the model's.
    """

    density: float | None = Field(None, gt=0, le=1)
    block: Block | None = None

    def __str__(self) -> str:
        """The override as flags and files have it: `0.2`, `16x1` or `0.2,16x1`."""
        block = f"{self.block[0]}x{self.block[1]}" if self.block else None
        return ",".join(str(part) for part in (self.density, block) if part is not None)


def _parse_override(value: object) -> Override:
    """0.2, `16x1`, `0.2,16x1`, {density: 0.2, block: 16x1} or an Override."""
    if isinstance(value, Override):
        found = value
    elif isinstance(value, dict):
        found = Override(**{str(name): field for name, field in value.items()})
    elif isinstance(value, str):
        parts = [part.strip() for part in value.split(",")]
        blocks = [part for part in parts if "x" in part]
        numbers = [part for part in parts if "x" not in part]
        if len(blocks) > 1 or len(numbers) > 1:
            raise EvergraftError(f"an override is a density, a block, or both, as in 0.2,16x1; got {value!r}")
        found = Override(density=numbers[0] if numbers else None, block=parse_block(blocks[0]) if blocks else None)
    else:
        found = Override(density=value)
    if found == Override():
        raise EvergraftError(f"an override is a density, a block, or both, as in 0.2,16x1; got {value!r}")
    return found


def _parse_overrides(value: object) -> object:
    """Pairs of a pattern and its override, from a mapping, from pairs, or from `PATTERN=OVERRIDE` as flags give it."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, Mapping):
        value = list(value.items())
    if not isinstance(value, (list, tuple)):
        raise EvergraftError(f"overrides are PATTERN=DENSITY, as in '*.attention.*=0.2'; got {value!r}")
    return tuple(map(_parse_pair, value))


def _parse_pair(value: object) -> tuple[str, Override]:
    pair = (*value.rpartition("=")[::2],) if isinstance(value, str) else value
    if not (isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], str) and pair[0]):
        raise EvergraftError(f"an override is PATTERN=DENSITY, as in '*.attention.*=0.2'; got {value!r}")
    return pair[0], _parse_override(pair[1])


Patterns = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
Overrides = Annotated[
    tuple[tuple[str, Override], ...],
    BeforeValidator(_parse_overrides),
    PlainSerializer(lambda pairs: [f"{pattern}={override}" for pattern, override in pairs]),
]


class SparsityConfig(Settings):
    """How a model is sparse: which of its layers, how densely, in which blocks, with which first weights.

    Attributes:
        density: share of the blocks that exist, in (0, 1]; 1 is dense.
        block: (R, C), rows of the output and columns of the input that live and die together.
        allocation: how blocks are shared out among layers, a name of `evergraft.sparse.allocation.ALLOCATIONS`.
        placement: where the first blocks of a layer lie, a name of `evergraft.sparse.placement.PLACEMENTS`.
        initialisation: how the first values are drawn, a name of `evergraft.sparse.initialisation.INITIALISATIONS`.
        initial_std: standard deviation of the first values; None is 0.02, or what a BERT's `initializer_range` says.
        include, exclude: shell patterns (`*`, `?`, `[...]`) of module names; those excluded are dense even if included.
        overrides: pairs of a name pattern and a density, a block or both for the layers that match it; the last match
            counts. A dict, and texts such as `*.attention.*=0.2,16x1`, are understood too.
        seed: the seed from which the first topologies and the first values are drawn.
        backend: what computes the sparse products: `auto`, or a name of `evergraft.sparse.products.BACKENDS`.

    Raises:
        SettingError: a value out of range, an unknown name or field.

    Example:
        >>> config = SparsityConfig(density=0.1, block="16x1", overrides={"*.attention.*": 0.2})
        >>> SparsityConfig(**config.to_dict()) == config
        True
    """

    EARLIER_NAMES: ClassVar[dict[str, str]] = {"std": "initial_std"}

    density: float = Field(0.1, gt=0, le=1, description="share of the encoder's blocks that exist; 1 is dense")
    block: Block = Field((16, 16), description="rows x columns of a block; 1x1 is unstructured")
    allocation: Annotated[str, AfterValidator(ALLOCATIONS.check), Choices(ALLOCATIONS.names)] = Field(
        "uniform", description="how blocks are shared out among layers"
    )
    placement: Annotated[str, AfterValidator(PLACEMENTS.check), Choices(PLACEMENTS.names)] = Field(
        "random", description="where the first blocks of a layer lie"
    )
    initialisation: Annotated[str, AfterValidator(INITIALISATIONS.check), Choices(INITIALISATIONS.names)] = Field(
        "fan_in", description="how first values are drawn"
    )
    initial_std: float | None = Field(
        None,
        gt=0,
        description="standard deviation of the first values (default: 0.02, or the config.json's initializer_range)",
    )
    include: Patterns = Field(STACK, description="patterns of the names of layers to make sparse; may be given again")
    exclude: Patterns = Field(OUTSIDE, description="patterns of the names of layers left dense; may be given again")
    overrides: Overrides = Field(
        (), description="PATTERN=DENSITY, PATTERN=BLOCK or PATTERN=DENSITY,BLOCK for some layers; may be given again"
    )
    seed: int = Field(0, ge=0, lt=SEEDS, description="seed of the first topology and values")
    backend: Annotated[str, AfterValidator(check_backend), Choices(backend_names)] = Field(
        "auto", description="backend of the sparse products"
    )

    @property
    def is_dense(self) -> bool:
        """Whether no layer is to be sparse: the density is 1, and no override names a lower one."""
        return self.density == 1 and all(one.density in (None, 1) for _, one in self.overrides)

    @property
    def std(self) -> float:
        """The standard deviation of the first values."""
        return INITIAL_STD if self.initial_std is None else self.initial_std

    def selects(self, name: str) -> bool:
        """Whether a layer of this name is to be sparse."""
        return _matches(name, self.include) and not _matches(name, self.exclude)

    def of_layer(self, name: str) -> tuple[float, tuple[int, int]]:
        """The density and the block that a layer of this name is asked to have."""
        density, block = self.density, self.block
        for pattern, override in self.overrides:
            if fnmatchcase(name, pattern):
                density, block = override.density or density, override.block or block
        return density, block


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
