"""The base of evergraft's settings: frozen records, validated on creation, that JSON and YAML can hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from evergraft.errors import EvergraftError

SEEDS = 2**32  # seeds run from 0 to this, exclusive: numpy takes no others
MOST = 10**9  # the largest count that a setting takes: beyond it something overflows


class SettingError(EvergraftError):
    """A setting was given a value that it cannot have.

    Attributes:
        name: the field's name; empty where several fields contradict each other.
        reason: what is wrong with the value.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"`{name}`: {reason}" if name else reason)
        self.name = name
        self.reason = reason

    def within(self, source: object) -> EvergraftError:
        """The same error of a setting that was read from `source`, which its sentence names."""
        return EvergraftError(f"{source}: {self.name}: {self.reason}" if self.name else f"{source}: {self.reason}")


S = TypeVar("S", bound="Settings")


class Settings(BaseModel):
    """A frozen record of settings.

    Attributes:
        EARLIER_NAMES: what keyword arguments of version 0.1.0 are called now; `of` understands them.

    Raises:
        SettingError: an unknown field, a value out of range, or fields that contradict each other.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=False,
        protected_namespaces=(),
        allow_inf_nan=False,
    )
    EARLIER_NAMES: ClassVar[dict[str, str]] = {}

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise _setting_error(type(self), error) from None

    @field_validator("*", mode="before")
    @classmethod
    def _plain_number(cls, value: object, info: ValidationInfo) -> object:
        """Take numpy's numbers for Python's, and refuse to take true and false for 1 and 0."""
        value = plain(value)
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError(f"expected another value than true or false; got {str(value).lower()}")
        return value

    @classmethod
    def of(cls: type[S], config: S | None, **fields: Any) -> S:
        """Return the record that was given, or make one of the fields that were given by keyword.

        Raises:
            EvergraftError: both a record and fields were given, or something that is not such a record.
            SettingError: as for the record itself.
        """
        if config is None:
            return cls(**{cls.EARLIER_NAMES.get(name, name): value for name, value in fields.items()})
        if type(config) is not cls:
            got = f"a {type(config).__name__}" if isinstance(config, Settings) else repr(config)
            raise EvergraftError(f"expected {cls.__name__}(...), or its fields as keywords; got {got}")
        if fields:
            raise EvergraftError(
                f"{', '.join(fields)} given beside {cls.__name__}(...); give the record alone, or "
                f"config.replace({', '.join(f'{name}=...' for name in fields)})"
            )
        return config

    def replace(self: S, **fields: Any) -> S:
        """A copy with other values in some fields, checked as a new record is.

        Raises:
            SettingError: as for the record itself.
        """
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | fields)

    def to_dict(self) -> dict[str, Any]:
        """All fields, as JSON holds them."""
        return self.model_dump(mode="json")

    def part(self, kind: type[S], **others: Any) -> S:
        """The fields of this record that `kind` has too, as a record of that kind.

        Args:
            kind: the class of the record to make.
            others: values that take the place of this record's.
        """
        return kind(**{name: getattr(self, name) for name in kind.model_fields} | others)


def plain(value: object) -> object:
    """A number of numpy or torch as Python's own; anything else as it is."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def parse_block(text: object) -> tuple[int, int]:
    """`16x16`, `16` or [16, 16] -> (16, 16): the rows and columns of a block.

    Raises:
        EvergraftError: the value is none of these.
    """
    if isinstance(text, (list, tuple)) and len(text) == 2:
        rows, columns = map(plain, text)
        if type(rows) is int and type(columns) is int and rows > 0 and columns > 0:
            return rows, columns
    match = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", str(text))
    if match is None:
        raise EvergraftError(
            f"block must be ROWSxCOLUMNS, such as 16x16 or 16x1, or one number for a square; got {text}"
        )
    return int(match[1]), int(match[2] or match[1])


Block = Annotated[
    tuple[int, int], BeforeValidator(parse_block), PlainSerializer(lambda block: f"{block[0]}x{block[1]}")
]


@dataclass(frozen=True)
class Choices:
    """Part of a field's annotation: the names that it can hold, for help texts.

    Attributes:
        names: called when they are shown, since other packages and scripts may add some.
    """

    names: Callable[[], list[str]]


def _setting_error(kind: type[Settings], error: ValidationError) -> SettingError:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        reason = f"no such field; {kind.__name__} has {', '.join(kind.model_fields)}"
    elif name and first["type"] != "value_error":
        reason = f"{reason}; got {first['input']!r}"
    return SettingError(name, reason)
