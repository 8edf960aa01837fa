"""Registries of the dataset's extension points: shard formats and encodings.

An item is found by name: a module of the registry's package that registers a class of its own name, or what an
installed package declares as an entry point of the registry's group. Names are listed without importing an item, so
that the config can offer them at once; an item is imported when it is first used.
"""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic_core import PydanticCustomError, core_schema

from stpatch.errors import ConfigError
from stpatch.extensions import load_outside, outside, own_names

if TYPE_CHECKING:
    from stpatch.dataset.codecs.base import Encoding
    from stpatch.dataset.formats.base import ShardFormat

T = TypeVar("T")


class Registry(Generic[T]):
    """Items by name, of this package and of others; as the metadata of an ``Annotated[str, ...]``, a config's choice.

    Parameters
    ----------
    what
        What an item is, for messages: "shard format".
    package
        Full name of the package whose modules are items, except its module ``base``.
    base
        Name of the class in module ``base`` that every item derives from.
    group
        Entry point group for items of other packages, each ``name = "module:Class"``.
    """

    def __init__(self, what: str, *, package: str, base: str, group: str) -> None:
        self.what, self.package, self.base, self.group = what, package, base, group
        self._items: dict[str, T] = {}

    def own(self) -> tuple[str, ...]:
        """Return the names of this package's own items."""
        return own_names(self.package, without=("base",))

    def names(self) -> tuple[str, ...]:
        """Return all names: this package's own, then those of other packages."""
        own = self.own()
        return (*own, *outside(self.group, taken=own))

    def register(self, cls: type[T]) -> type[T]:
        """Class decorator: make the item known under its attribute ``name``."""
        self._add(cls.name, cls)  # type: ignore[attr-defined]
        return cls

    def get(self, name: str, *, where: object = None) -> T:
        """Return an item; its module is imported on first use.

        Raises
        ------
        ConfigError
            There is no such item, or its package cannot be imported or brings something else.
        """
        if name not in self._items:
            own = self.own()
            if name in own:
                importlib.import_module(f"{self.package}.{name}")
            else:
                point = outside(self.group, taken=own).get(name)
                if point is None:
                    raise ConfigError(
                        f"unknown {self.what} {name!r}", where=where, expected=f"one of {', '.join(self.names())}",
                        hint=self._hint(name),
                    )  # fmt: skip
                self._add(name, load_outside(point))
        return self._items[name]

    def _add(self, name: str, item: Any) -> None:
        base = getattr(importlib.import_module(f"{self.package}.base"), self.base)
        if not isinstance(item, type) or not issubclass(item, base) or getattr(item, "name", None) != name:
            raise ConfigError(
                f"a {self.what} is registered that is not one",
                where=f"entry point group {self.group}, name {name}",
                found=repr(item),
                expected=f"a class derived from {self.package}.base.{self.base} whose attribute name is {name!r}",
                hint="update or uninstall the package that brings it",
            )
        self._items[name] = item()

    def _hint(self, name: str) -> str:
        near = difflib.get_close_matches(name, self.names(), n=1, cutoff=0.5)
        return f"did you mean {near[0]!r}?" if near else f"install the package that brings this {self.what}"

    # -- as a config's choice: pydantic calls these two where a key is annotated with the registry ------------------

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._known, core_schema.str_schema())

    def __get_pydantic_json_schema__(self, _schema: Any, _handler: Any) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.names())}

    def _known(self, name: str) -> str:
        # Own names first: installed packages are looked through only where a name is not one of these.
        if name not in self.own() and name not in self.names():
            known = ", ".join(self.names())
            raise PydanticCustomError("choice", "one of {known}; {hint}", {"known": known, "hint": self._hint(name)})
        return name


FORMATS: Registry[ShardFormat] = Registry(
    "shard format", package="stpatch.dataset.formats", base="ShardFormat", group="stpatch.formats"
)
ENCODINGS: Registry[Encoding] = Registry(
    "encoding", package="stpatch.dataset.codecs", base="Encoding", group="stpatch.encodings"
)
