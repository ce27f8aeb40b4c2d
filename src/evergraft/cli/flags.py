"""Flags: those that several commands share, and those that the fields of a recipe become."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from evergraft.errors import EvergraftError
from evergraft.runs.recipe import Recipe
from evergraft.settings import Choices

DEFAULTS = Recipe.model_construct().model_dump(mode="json")  # those of all fields, as YAML writes them


def _choices(field: FieldInfo) -> Sequence[str]:
    """The names that a field can hold: those of a Literal, or of the registry that its annotation names."""
    if get_origin(field.annotation) is Literal:
        return [str(choice) for choice in get_args(field.annotation)]
    return next((part.names() for part in field.metadata if isinstance(part, Choices)), ())


def described(name: str) -> str:
    """What a field of a recipe means, and the names it can hold, as the beginning of a help text."""
    field = Recipe.model_fields[name]
    text = field.description or name.replace("_", " ")
    choices = _choices(field)
    return text[0].upper() + text[1:] + (f": {', '.join(choices)}" if choices else "")


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Model = Annotated[str, typer.Option(help=f"{described('model')}.")]


def with_recipe_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one flag for each field of `Recipe`.

    Args:
        command: takes, beside its own parameters, the fields whose flags were used: a dict `fields`, by name.

    Returns:
        A function with the signature that typer turns into flags.
    """

    def run(**arguments: Any) -> None:
        fields = {name: arguments.pop(name) for name in Recipe.model_fields}
        command(**arguments, fields={name: value for name, value in fields.items() if value is not None})

    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "fields"]
    flags = [_flag(name, field) for name, field in Recipe.model_fields.items()]
    run.__signature__ = inspect.Signature([*own, *flags])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *flags]}
    run.__doc__ = command.__doc__
    run.__name__ = command.__name__
    return run


def check_choice(flag: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a value that is not among a flag's choices.

    Raises:
        EvergraftError: it is not; the sentence names the flag and the choices.
    """
    if value not in choices:
        raise EvergraftError(f"{flag} must be {', '.join(choices[:-1])} or {choices[-1]}; got {value}")


def _flag(name: str, field: FieldInfo) -> inspect.Parameter:
    """The flag of a field; it is None if it was not used."""
    default = _default(name)
    text = described(name) + (f" (default: {default})" if default else "")
    kind, option = _flag_type(field.annotation) | None, typer.Option(help=f"{text}.", show_default=False)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option])


def _flag_type(annotation: Any) -> Any:
    """The type of a field as a flag.

    Numbers and switches stay what they are. A list or a tuple of any length becomes several texts, as the
    flag may be given again. All else, such as a block or a name, is one text, which the recipe parses.
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        choices = [choice for choice in inner if choice is not NoneType]
        return _flag_type(choices[0]) if len(choices) == 1 else str
    if origin is Annotated:
        return _flag_type(inner[0])
    if (origin is tuple and Ellipsis not in inner) or not isinstance(origin or annotation, type):
        return str
    if issubclass(origin or annotation, Sequence) and annotation is not str:
        return list[str]
    return annotation if annotation in (int, float, bool) else str


def _default(name: str) -> str:
    """The default of a field as it would be typed; empty if it has none, or if its description tells it."""
    match DEFAULTS.get(name):
        case None:
            return ""
        case bool(switch):
            return "on" if switch else "off"
        case list(several):
            return " ".join(several)
        case value:
            return str(value)
