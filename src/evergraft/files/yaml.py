"""YAML files of named fields, in which no field may be given twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from evergraft.errors import EvergraftError


def read_yaml(path: Path, kind: str) -> dict[str, Any]:
    """Read the fields of a YAML file.

    Args:
        path: the file.
        kind: what the file is, for error messages: `recipe` or `study`.

    Raises:
        EvergraftError: the file is missing, is not YAML, names a field twice, or holds no fields.

    Example:
        >>> read_yaml(Path("recipes/first.yaml"), "recipe")["density"]
        0.1
    """
    try:
        fields = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise EvergraftError(f"{kind} {path} does not exist; expected a YAML file of {kind} fields") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise EvergraftError(f"{kind} {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(fields, dict):
        raise EvergraftError(f"{kind} {path} must hold `field: value` lines; got {type(fields).__name__}")
    for name in fields:
        if not isinstance(name, str):
            raise EvergraftError(f"{kind} {path} must hold `field: value` lines; got a field called {name!r}")
    return fields


class _Loader(yaml.SafeLoader):
    """Refuses a field that is named twice, of which the last would count."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(problem=f"{name} stands twice in one place; keep one of them")
        return super().construct_mapping(node, deep)
