"""What made a unit's bytes: the package, the code that its stage runs, and the libraries that the code calls.

The code is found from the sources, nothing is imported: from the stage's module along its import statements, as far as
they lead to modules of this package. Of each module only what runs counts: neither comments, docstrings and layout, nor
what stands under ``TYPE_CHECKING``, nor the words of a ``raise``. So a better message redoes nothing, and a constant
that changes in a module four imports away redoes every unit that may have used it.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.resources
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import stpatch
from stpatch import registry
from stpatch.storage import digest, read_sealed, write_sealed

PLUGIN_GROUPS = tuple(item.group for item in registry.ALL)
"""Entry points by which other packages add code that stages run."""


@dataclass(frozen=True, kw_only=True)
class Software:
    """What made a unit.

    Attributes
    ----------
    package
        Version of stpatch.
    code
        Digest of the code that the stage runs, see `CodeIndex`.
    libraries
        Versions of the libraries that decide the bytes, by distribution name.
    """

    package: str = ""
    code: str = ""
    libraries: Mapping[str, str] = field(default_factory=dict)

    @property
    def versions(self) -> dict[str, str]:
        """The package's and the libraries' versions, as the manifest lists them."""
        return {"stpatch": self.package, **self.libraries}


def library_versions(names: Iterable[str]) -> dict[str, str]:
    """Return the installed versions of distributions; those that are not installed (optional ones) are left out."""
    found = {}
    for name in sorted(names):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def plugin_versions() -> dict[str, str]:
    """Return the versions of the installed packages that add readers, rules or formats."""
    points = importlib.metadata.entry_points()
    owners = [point.dist for group in PLUGIN_GROUPS for point in points.select(group=group)]
    return {owner.name: owner.version for owner in owners if owner is not None}


@dataclass(frozen=True, kw_only=True)
class ModuleCode:
    """One module: the digest of what runs in it, the names it imports, and whether it imports others by name."""

    digest: str
    imports: tuple[str, ...]
    by_name: bool


class CodeIndex:
    """The digests of a package's modules.

    Parsing a hundred modules takes half a second, more than an up-to-date build does otherwise. So what is found is
    kept by the source files' sizes and times: once per installation, or once per work dir where the installation cannot
    be written to. With what is kept, all stages' digests take 0.05 s.

    Parameters
    ----------
    package
        The package whose modules count.
    caches
        Files to keep in what was found: the first one that can be written. Their folders must exist.
    version
        Of the package: what an installation without sources goes by.
    """

    def __init__(self, package: str = "stpatch", *, caches: Sequence[Path] = (), version: str | None = None) -> None:
        self.package = package
        self.version = stpatch.__version__ if version is None else version
        self._caches = caches
        self._fresh: dict[str, dict[str, Any]] = {}
        self._digests: dict[tuple[str, ...], str] = {}

    def digest(self, roots: Sequence[str]) -> str:
        """Return one digest of the code that modules run: their own, and that of all they import.

        Where the sources are not installed, the package's version stands for them.
        """
        key = tuple(roots)
        if key not in self._digests:
            modules = self.modules(roots)
            code = {name: module.digest for name, module in modules.items()} or self.version
            self._digests[key] = digest([code, self._plugins])
            self._keep()
        return self._digests[key]

    def modules(self, roots: Sequence[str]) -> dict[str, ModuleCode]:
        """Return the modules that `roots` import, directly or not, with themselves, by name."""
        found: dict[str, ModuleCode] = {}
        waiting = list(roots)
        while waiting:
            name = waiting.pop()
            file = None if name in found else self._file(name)
            if file is None:
                continue
            module = found[name] = self._module(name, file)
            waiting += module.imports
            room = name if file.name == "__init__.py" else name.rpartition(".")[0]
            if room == self.package:
                continue  # what stands below the rooms: the config offers names, the registries know packages by name
            if module.by_name and name != __name__:  # it may import any of its neighbours; this one lists plug-ins
                waiting += self._members(room)
            for imported in module.imports:
                waiting += self._registered(imported)
        return dict(sorted(found.items()))

    def _module(self, name: str, file: Traversable) -> ModuleCode:
        mark = _mark(file)
        kept = self._kept.get(name) if mark else None
        if kept is None or kept["mark"] != mark:
            source = file.read_bytes()
            code = read_module(source, name=name, package=self.package, is_package=file.name == "__init__.py")
            kept = {"mark": mark, "digest": code.digest, "imports": list(code.imports), "by_name": code.by_name}
            self._fresh[name] = self._kept[name] = kept
        return ModuleCode(digest=kept["digest"], imports=tuple(kept["imports"]), by_name=kept["by_name"])

    @cached_property
    def _plugins(self) -> dict[str, str]:
        return plugin_versions()

    @cached_property
    def _root(self) -> Traversable:
        return importlib.resources.files(self.package)

    def _file(self, name: str) -> Traversable | None:
        """Return a module's source, None for what is not a module of the package (an imported function)."""
        parts = name.split(".")
        if parts[0] != self.package or len(parts) == 1:  # the package's own __init__ names every part, and runs none
            return None
        for path in ((*parts[1:-1], f"{parts[-1]}.py"), (*parts[1:], "__init__.py")):
            file = self._root.joinpath(*path)
            if file.is_file():
                return file
        return None

    def _registered(self, imported: str) -> Iterator[str]:
        """Yield the modules that a registry may import, where the imported name is one of `stpatch.registry`."""
        module, _, name = imported.rpartition(".")
        package = getattr(getattr(registry, name, None), "package", None)
        if module == registry.__name__ and package is not None:
            yield from self._members(package)

    def _members(self, package: str) -> Iterator[str]:
        folder = self._root.joinpath(*package.split(".")[1:])
        for item in folder.iterdir():
            stem, _, suffix = item.name.partition(".")
            if suffix == "py" and stem != "__init__":
                yield f"{package}.{stem}"
            elif item.is_dir() and item.joinpath("__init__.py").is_file():
                yield f"{package}.{stem}"
                yield from self._members(f"{package}.{stem}")

    @cached_property
    def _kept(self) -> dict[str, dict[str, Any]]:
        """What an earlier run found of the same installation."""
        for cache in self._caches:
            try:
                value = read_sealed(cache)
                if value["package"] == self._installation:
                    return dict(value["modules"])
            except (OSError, ValueError, KeyError, TypeError):  # none, or an unreadable one: it is found again
                continue
        return {}

    @property
    def _installation(self) -> list[str]:
        return [self.package, self.version, str(self._root)]

    def _keep(self) -> None:
        """Write down what this run had to find, to the first cache that can be written."""
        if not self._fresh:
            return
        self._fresh = {}
        for cache in self._caches:
            if cache.parent.is_dir():
                with suppress(OSError):
                    write_sealed(cache, {"package": self._installation, "modules": self._kept})
                    return


def installation_cache() -> Path | None:
    """Return where an installation keeps what was found of it: beside Python's own caches, where Python keeps some."""
    root = importlib.resources.files(stpatch)
    return None if sys.dont_write_bytecode or not isinstance(root, Path) else root / "__pycache__" / "code.json"


def _mark(file: Traversable) -> list[int]:
    """Return size and time of a source file, nothing where it lies in an archive."""
    if not isinstance(file, Path):
        return []
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns]


def read_module(source: bytes, *, name: str, package: str, is_package: bool) -> ModuleCode:
    """Return what runs in a module's source, and what of its package it imports.

    Parameters
    ----------
    source
        The module's text.
    name, package
        The module's full name, and the package whose modules count.
    is_package
        Whether the module is a package's ``__init__``, from which relative imports start.
    """
    reading = _Reading(name if is_package else name.rpartition(".")[0])
    reading.visit(ast.parse(source))
    inside = sorted(found for found in reading.imports if found.partition(".")[0] == package)
    text = "\n".join(reading.words)
    return ModuleCode(
        digest=hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
        imports=tuple(inside),
        by_name=reading.by_name,
    )


_BY_NAME = ("import_module", "iter_modules", "walk_packages", "entry_points", "__import__")
"""Functions by which a module imports what no import statement of it names."""


class _Reading:
    """Walks a syntax tree and writes down what runs.

    The form is its own and not `ast.dump`'s, which differs between versions of Python: a node is its type and those of
    its fields that are not empty, each followed by a closing mark.
    """

    def __init__(self, package: str) -> None:
        self._package = package
        self.words: list[str] = []
        self.imports: set[str] = set()
        self.by_name = False

    def visit(self, node: ast.AST) -> None:
        kind = type(node)
        if kind in _WITH_MEANING and self._is_left_out(node):
            return
        words = self.words
        words.append(kind.__name__)
        for name in kind._fields:
            value = getattr(node, name, None)
            if value is None or name in _UNSEEN:
                continue
            words.append(name)
            if isinstance(value, ast.AST):
                self.visit(value)
            elif isinstance(value, list):
                for item in _without_docstrings(value) if name == "body" else value:
                    if isinstance(item, ast.AST):
                        self.visit(item)
                    else:
                        words.append(repr(item))
            else:
                words.append(f"{type(value).__name__} {value!r}")
        words.append(")")

    def _is_left_out(self, node: ast.AST) -> bool:
        """Look at nodes that mean something here, and say whether what they hold does not count."""
        if isinstance(node, ast.Raise):  # it tells what is wrong, and makes nothing
            self.words.append("Raise")
            return True
        if isinstance(node, ast.If):
            return _is_type_checking(node.test)
        if isinstance(node, ast.Import | ast.ImportFrom):
            self.imports.update(_imported(node, self._package))
        elif (node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")) in _BY_NAME:
            self.by_name = True
        return False


_WITH_MEANING = frozenset({ast.Raise, ast.If, ast.Import, ast.ImportFrom, ast.Attribute, ast.Name})
_UNSEEN = frozenset({"ctx", "kind", "type_comment", "type_params"})
"""Fields that follow from others, or that not every version of Python has."""


def _without_docstrings(body: list[Any]) -> list[Any]:
    """Leave out texts that stand alone: docstrings of modules, classes, functions, constants and fields."""
    return [item for item in body if not (type(item) is ast.Expr and _is_text(item.value))]


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _imported(node: ast.AST, package: str) -> Iterator[str]:
    """Yield what an import statement may import: modules, and members of modules that may be modules themselves."""
    if isinstance(node, ast.Import):
        yield from (item.name for item in node.names)
    elif isinstance(node, ast.ImportFrom):
        parents = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
        base = ".".join([*parents, *([node.module] if node.module else [])])
        yield base
        yield from (f"{base}.{item.name}" for item in node.names)
