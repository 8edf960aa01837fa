"""The registry of rules: found by their modules' names and by entry points, imported on first use.

A rule is a module of `stpatch.expression.rules.panel` or `.patch`, named for the rule, whose class registers itself; or
a class that another package names in the entry point group ``stpatch.rules.panel`` or ``stpatch.rules.patch``. The
folder (or the group) tells the kind, so names are listed without importing any rule.
"""

from __future__ import annotations

import difflib
import importlib
from typing import TypeVar

from stpatch.errors import ConfigError
from stpatch.expression.rules.base import PanelRule, PatchRule
from stpatch.extensions import load_outside, outside, own_names

PANEL, PATCH = "panel", "patch"
GROUP = "stpatch.rules"
"""Entry point groups of rules from other packages: ``stpatch.rules.panel`` and ``stpatch.rules.patch``."""

Rule = TypeVar("Rule", bound=type[PanelRule] | type[PatchRule])
_RULES: dict[tuple[str, str], PanelRule | PatchRule] = {}


def register(cls: Rule) -> Rule:
    """Class decorator: add a rule under its name."""
    _RULES[PANEL if issubclass(cls, PanelRule) else PATCH, cls.name] = cls()
    return cls


def own_panel_names() -> tuple[str, ...]:
    """Return the names of this package's panel rules, without importing them."""
    return _own(PANEL)


def own_patch_names() -> tuple[str, ...]:
    """Return the names of this package's patch rules, without importing them."""
    return _own(PATCH)


def panel_names() -> tuple[str, ...]:
    """Return the names of all panel rules, those of other packages last, without importing them."""
    return _all(PANEL)


def patch_names() -> tuple[str, ...]:
    """Return the names of all patch rules, those of other packages last, without importing them."""
    return _all(PATCH)


def panel_rule(name: str) -> PanelRule:
    """Return a panel rule.

    Raises
    ------
    ConfigError
        No panel rule has this name, or another package's cannot be imported or is not what its entry point says.
    """
    rule = _rule(PANEL, name)
    assert isinstance(rule, PanelRule)  # noqa: S101 - for the type checker; `_rule` has made sure
    return rule


def patch_rule(name: str) -> PatchRule:
    """Return a patch rule; errors as in `panel_rule`."""
    rule = _rule(PATCH, name)
    assert isinstance(rule, PatchRule)  # noqa: S101 - for the type checker; `_rule` has made sure
    return rule


def nearest(name: str, names: tuple[str, ...]) -> str | None:
    """Return the known name that is most like `name`, if one is."""
    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=0.4)), None)


def _own(kind: str) -> tuple[str, ...]:
    return own_names(f"{__package__}.{kind}")


def _all(kind: str) -> tuple[str, ...]:
    own = _own(kind)
    return (*own, *outside(f"{GROUP}.{kind}", taken=own))


def _rule(kind: str, name: str) -> PanelRule | PatchRule:
    if name in _own(kind):
        if (kind, name) not in _RULES:
            importlib.import_module(f"{__package__}.{kind}.{name}")
        return _RULES[kind, name]
    point = outside(f"{GROUP}.{kind}").get(name)
    if point is None:
        near = nearest(name, _all(kind))
        raise ConfigError(
            f"unknown {kind} rule {name!r}",
            where="channels.method",
            expected=f"one of {', '.join(_all(kind))}",
            hint=f"did you mean {near!r}?" if near else None,
        )
    cls = load_outside(point)
    base = PanelRule if kind == PANEL else PatchRule
    if not (isinstance(cls, type) and issubclass(cls, base)) or getattr(cls, "name", None) != name:
        raise ConfigError(
            "a rule of another package is not what its entry point says",
            where=f"entry point group {GROUP}.{kind}, {point.name} = {point.value}",
            found=f"{cls!r} with name = {getattr(cls, 'name', None)!r}",
            expected=f"a subclass of {base.__name__} with name = {name!r}",
            hint="update or uninstall the package",
        )
    return cls()
