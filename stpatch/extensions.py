"""Named extensions of a room: its own modules, and what installed packages add by entry points.

A room's own extension is a module of its package, named for the extension. A package from outside declares an entry
point in the room's group, ``name = "module:Object"``. Listing names imports neither.
"""

from __future__ import annotations

import importlib.util
import pkgutil
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from stpatch.errors import ConfigError

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


@lru_cache(maxsize=64)
def own_names(package: str, *, without: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return the names of a package's modules in alphabetical order, without importing them.

    Parameters
    ----------
    package
        Full name of the room's package.
    without
        Modules that are no extension: the registry itself.
    """
    spec = importlib.util.find_spec(package)
    places = [] if spec is None or spec.submodule_search_locations is None else list(spec.submodule_search_locations)
    names = {module.name for module in pkgutil.iter_modules(places) if not module.name.startswith("_")}
    return tuple(sorted(names - set(without)))


def outside(group: str, *, taken: tuple[str, ...] = ()) -> Mapping[str, EntryPoint]:
    """Return the entry points of a group by name, without importing what they name.

    Raises
    ------
    ConfigError
        A name is not an identifier in lower case, or two packages (or a package and the room, `taken`) have it.
    """
    found: dict[str, EntryPoint] = {}
    for point in _points(group, tuple(sys.path)):
        package = point.dist.name if point.dist is not None else point.value
        if _NAME.fullmatch(point.name) is None:
            raise ConfigError(
                "an installed package registers a name that is not valid",
                where=f"package {package}, entry point group {group}",
                found=repr(point.name),
                expected="1 to 64 of the characters a-z 0-9 _, the first a letter",
                hint="update or uninstall the package",
            )
        other = found.get(point.name)
        if point.name in taken or (other is not None and other.value != point.value):
            raise ConfigError(
                "two packages register one name",
                where=f"entry point group {group}",
                found=f"{point.name}: {point.value} of package {package}, and "
                + ("stpatch itself" if other is None else other.value),
                hint="uninstall one of the packages, or rename its entry point",
            )
        found[point.name] = point
    return dict(sorted(found.items()))


@lru_cache(maxsize=16)
def _points(group: str, _path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Look through the installed packages, once for each state of the import path."""
    return tuple(entry_points(group=group))


def load_outside(point: EntryPoint) -> Any:
    """Import what an entry point names; a package that cannot be imported is a `ConfigError` that names it."""
    try:
        return point.load()
    except Exception as error:
        package = point.dist.name if point.dist is not None else point.value
        raise ConfigError(
            "an installed extension cannot be imported",
            where=f"package {package}, entry point {point.name} = {point.value}",
            found=f"{type(error).__name__}: {error}",
            hint="update or uninstall the package",
        ) from error
