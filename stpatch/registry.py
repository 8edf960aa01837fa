"""Registries of what stpatch can be extended with: readers, rules, shard formats and encodings.

An item is found by name: a module of the registry's package that registers a class of its own name, or what an
installed package declares as an entry point of the registry's group. Names are listed without importing an item, so
that the config can offer them at once; an item is imported when it is first used.

This module stands below all rooms. It knows the packages by their names alone, and imports none of them by itself.
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
    from stpatch.expression.rules.base import PanelRule, PatchRule
    from stpatch.slides.readers.registry import Reader

T = TypeVar("T")


class Registry(Generic[T]):
    """Items by name, of this package and of others; as the metadata of an ``Annotated[str, ...]``, a config's choice.

    Parameters
    ----------
    what
        What an item is, for messages: "shard format".
    package
        Full name of the package whose modules are items.
    base
        ``module:Class`` that every item is an instance of.
    group
        Entry point group for items of other packages, each ``name = "module:Class"``.
    without
        Modules of the package that are not items.
    attribute
        The class attribute that holds an item's name.
    """

    def __init__(
        self, what: str, *, package: str, base: str, group: str, without: tuple[str, ...] = (), attribute: str = "name"
    ) -> None:
        self.what, self.package, self.base, self.group = what, package, base, group
        self.without, self.attribute = without, attribute
        self._items: dict[str, T] = {}

    def own(self) -> tuple[str, ...]:
        """Return the names of this package's own items."""
        return own_names(self.package, without=self.without)

    def names(self) -> tuple[str, ...]:
        """Return all names: this package's own, then those of other packages."""
        own = self.own()
        return (*own, *outside(self.group, taken=own))

    def register(self, cls: type[T]) -> type[T]:
        """Class decorator: make the item known under its name."""
        self._add(str(getattr(cls, self.attribute)), cls)
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
                        f"unknown {self.what} {name!r}",
                        where=where,
                        expected=f"one of {', '.join(self.names())}",
                        hint=_hint(self, name),
                    )
                self._add(name, load_outside(point))
        return self._items[name]

    def _add(self, name: str, item: Any) -> None:
        module, _, base = self.base.partition(":")
        kind = getattr(importlib.import_module(module), base)
        made = item() if isinstance(item, type) and getattr(item, self.attribute, None) == name else None
        if not isinstance(made, kind):
            raise ConfigError(
                f"a {self.what} is registered that is not one",
                where=f"entry point group {self.group}, name {name}",
                found=f"{item!r} with {self.attribute} = {getattr(item, self.attribute, None)!r}",
                expected=f"a subclass of {module}.{base} whose attribute {self.attribute} is {name!r}",
                hint="update or uninstall the package that brings it",
            )
        self._items[name] = made

    # -- as a config's choice: pydantic calls these two where a key is annotated with the registry ------------------

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> core_schema.CoreSchema:
        return Choice(self).__get_pydantic_core_schema__(_source, _handler)

    def __get_pydantic_json_schema__(self, _schema: Any, _handler: Any) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.names())}


class Choice:
    """A config's key that takes a name of some registries, or one of a few further words.

    Parameters
    ----------
    registries
        Whose names are taken, in this order.
    further
        Words in front of the names, such as ``auto``.
    """

    def __init__(self, *registries: Registry[Any], further: tuple[str, ...] = ()) -> None:
        self.registries, self.further = registries, further

    def own(self) -> tuple[str, ...]:
        """Return the further words and the names of this package's own items."""
        return tuple(dict.fromkeys((*self.further, *(name for item in self.registries for name in item.own()))))

    def names(self) -> tuple[str, ...]:
        """Return the further words and all names."""
        return tuple(dict.fromkeys((*self.further, *(name for item in self.registries for name in item.names()))))

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._known, core_schema.str_schema(strict=True))

    def __get_pydantic_json_schema__(self, _schema: Any, _handler: Any) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.names())}

    def _known(self, name: str) -> str:
        # Own names first: installed packages are looked through only where a name is not one of these.
        if name not in self.own() and name not in self.names():
            known = ", ".join(self.names())
            raise PydanticCustomError("choice", "one of {known}; {hint}", {"known": known, "hint": _hint(self, name)})
        return name


def _hint(known: Registry[Any] | Choice, name: str) -> str:
    near = difflib.get_close_matches(name, known.names(), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else "a package that is not installed may bring it"


READERS: Registry[Reader] = Registry(
    "platform",
    package="stpatch.slides.readers",
    base="stpatch.slides.readers.registry:Reader",
    group="stpatch.readers",
    without=("registry",),
    attribute="platform",
)
PANEL_RULES: Registry[PanelRule] = Registry(
    "panel rule",
    package="stpatch.expression.rules.panel",
    base="stpatch.expression.rules.base:PanelRule",
    group="stpatch.rules.panel",
)
PATCH_RULES: Registry[PatchRule] = Registry(
    "patch rule",
    package="stpatch.expression.rules.patch",
    base="stpatch.expression.rules.base:PatchRule",
    group="stpatch.rules.patch",
)
FORMATS: Registry[ShardFormat] = Registry(
    "shard format",
    package="stpatch.dataset.formats",
    base="stpatch.dataset.formats.base:ShardFormat",
    group="stpatch.formats",
    without=("base",),
)
ENCODINGS: Registry[Encoding] = Registry(
    "encoding",
    package="stpatch.dataset.codecs",
    base="stpatch.dataset.codecs.base:Encoding",
    group="stpatch.encodings",
    without=("base",),
)

ALL: tuple[Registry[Any], ...] = (READERS, PANEL_RULES, PATCH_RULES, FORMATS, ENCODINGS)
"""Every registry."""
