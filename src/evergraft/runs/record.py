"""What the typed records of a run have in common: they are frozen, checked, and known to JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from evergraft.errors import EvergraftError


class Record(BaseModel):
    """A frozen record whose fields are checked when it is made; no value is converted to another type.

    Example:
        >>> class Cost(Record):
        ...     seconds: float
        >>> Cost(seconds=1.5).to_dict()
        {'seconds': 1.5}
    """

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON has it: a dict of its fields, in their order."""
        return self.model_dump(mode="json")


class StoredRecord(Record):
    """A `Record` that is kept in a file; fields that another version wrote and this one does not know are kept."""

    model_config = ConfigDict(extra="allow")


AnyRecord = TypeVar("AnyRecord", bound=Record)


def read_record(kind: type[AnyRecord], path: Path, advice: str) -> AnyRecord:
    """Read a record from the JSON file that its `to_dict` was written to.

    Args:
        kind: the class of the record.
        path: the file.
        advice: what to do if the file cannot be read; the end of the error's sentence.

    Raises:
        EvergraftError: the file is missing, is not a JSON object, or a field is missing or is not what it can be.
    """
    try:
        return kind.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise EvergraftError(f"{path} is missing; {advice}") from None
    except ValidationError as error:
        raise EvergraftError(f"{path} is torn{_fault(error)}; {advice}") from None
    except ValueError:
        raise EvergraftError(f"{path} is torn; {advice}") from None


def _fault(error: ValidationError) -> str:
    faults = error.errors()
    lacking = [str(fault["loc"][0]) for fault in faults if fault["type"] == "missing" and len(fault["loc"]) == 1]
    if lacking:
        return f": it lacks {', '.join(lacking)}"
    name = ".".join(map(str, faults[0]["loc"]))
    return f": {name}: {faults[0]['msg']}; got {faults[0]['input']!r}" if name else ""
