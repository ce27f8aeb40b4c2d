"""Registries: the functions that a setting chooses by name, evergraft's own, other packages' and those of a script.

A registry finds a name in three places:

1. A file of its own package: `evolution/growth/random.py` is the growth rule `random`, the function `random` in it.
2. An entry point of another installed package, in the registry's group:

       [project.entry-points."evergraft.growth"]
       my-rule = "my_package.rules:my_rule"

3. `register`, for a function of one's own script.

Names are known without importing anything, so that flags, YAML files and help texts list them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, distributions
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Generic, TypeVar

from evergraft.errors import EvergraftError

T = TypeVar("T")


class Registry(Generic[T]):
    """Functions of one kind by name.

    Args:
        kind: what the functions are called in error messages, such as `growth rule`.
        group: the entry-point group in which other packages offer theirs: `evergraft.growth`.
        package: the package whose files are the built-in ones; files whose names start with an underscore are left out.
        attribute: what a built-in file calls its function; by default its own name.
        methods: what an object must have to be one of these; by default it must be callable.
        reserved: names that mean something else to the setting, such as `auto`.

    Example:
        >>> @GROWTH_RULES.register("first")
        ... def first(context):
        ...     return inactive_positions(context.topology, torch.arange(context.count))
    """

    def __init__(
        self,
        kind: str,
        group: str,
        package: str,
        attribute: str | None = None,
        methods: Sequence[str] = ("__call__",),
        reserved: Sequence[str] = (),
    ) -> None:
        self.kind = kind
        self.group = group
        self._package = package
        self._attribute = attribute
        self._methods = methods
        self._reserved = reserved
        self._registered: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorate a function to be known by `name`; one registered before it by that name is replaced.

        Raises:
            EvergraftError: a built-in function has that name, it is no name, or what is decorated is no such function.
        """
        if not isinstance(name, str) or not name.strip():
            raise EvergraftError(f"a {self.kind} needs a name, a text that is not empty; got {name!r}")
        if name in self._reserved:
            raise EvergraftError(f"{name!r} can be no {self.kind}'s name, since it means another thing; choose another")
        if name in self._built_in:
            raise EvergraftError(f"{self.kind} {name!r} is built in; register yours under another name")

        def add(function: T) -> T:
            self._check_kind(name, function)
            self._registered.pop(name, None)
            self._registered[name] = function
            return function

        return add

    def unregister(self, name: str) -> None:
        """Forget a name that `register` has added.

        Raises:
            EvergraftError: it has added no such name.
        """
        if name not in self._registered:
            raise EvergraftError(f"no {self.kind} was registered as {name!r}")
        del self._registered[name]

    def names(self) -> list[str]:
        """All names: built-in ones, those of other packages, those registered, each in their order."""
        return list(dict.fromkeys([*self._built_in, *self._offered, *self._registered]))

    def check(self, name: str) -> str:
        """Return `name` if it is known.

        Raises:
            EvergraftError: it is not; the sentence lists the names that are.
        """
        if name not in self.names():
            raise EvergraftError(f"no {self.kind} is called {name!r}; choose one of {', '.join(self.names())}")
        return name

    def get(self, name: str) -> T:
        """The function of that name, imported when it is first asked for.

        Raises:
            EvergraftError: the name is unknown, or the package that offers it cannot be imported.
        """
        if name in self._registered:
            return self._registered[name]
        if name in self._built_in:
            module = import_module(f"{self._package}.{name}")
            return getattr(module, self._attribute or name)  # type: ignore[no-any-return]
        self.check(name)
        return self._load(self._offered[name])

    def _load(self, entry: EntryPoint) -> T:
        try:
            function = entry.load()
        except Exception as error:  # whatever another package raises while it is imported
            raise EvergraftError(
                f"{self.kind} {entry.name!r} of {entry.value} cannot be loaded ({type(error).__name__}: {error}); "
                "repair or uninstall the package that offers it"
            ) from None
        self._check_kind(entry.name, function)
        return function  # type: ignore[no-any-return]

    def _check_kind(self, name: str, function: object) -> None:
        lacking = [method for method in self._methods if not hasattr(function, method)]
        if lacking:
            raise EvergraftError(f"{self.kind} {name!r} is {function!r}, which lacks {', '.join(lacking)}")

    @cached_property
    def _built_in(self) -> list[str]:
        spec = find_spec(self._package)
        folders = (spec.submodule_search_locations if spec else None) or []
        return sorted(module.name for module in iter_modules(folders) if not module.name.startswith("_"))

    @cached_property
    def _offered(self) -> dict[str, EntryPoint]:
        taken = {*self._built_in, *self._reserved}
        return {entry.name: entry for entry in _entry_points() if entry.group == self.group and entry.name not in taken}


@cache
def _entry_points() -> tuple[EntryPoint, ...]:
    """Every entry point on this machine: one look for all groups, since it takes 10 ms."""
    return tuple(entry for distribution in distributions() for entry in distribution.entry_points)
