"""Rules by name: the decorator that a rule's module uses, and the rules that others ask for.

A rule is a module of `stpatch.expression.rules.panel` or `.patch`, named for the rule, whose class registers itself; or
a class that another package names in the entry point group ``stpatch.rules.panel`` or ``stpatch.rules.patch``. Some
names are both a panel rule and a patch rule.
"""

from __future__ import annotations

from typing import TypeVar

from stpatch.expression.rules.base import PanelRule, PatchRule
from stpatch.registry import PANEL_RULES, PATCH_RULES

Rule = TypeVar("Rule", bound=type[PanelRule] | type[PatchRule])
KEY = "channels.method"


def register(cls: Rule) -> Rule:
    """Class decorator: add a rule under its name."""
    if issubclass(cls, PanelRule):
        PANEL_RULES.register(cls)
    elif issubclass(cls, PatchRule):
        PATCH_RULES.register(cls)
    return cls


def panel_rule(name: str) -> PanelRule:
    """Return a panel rule; `stpatch.registry.Registry.get` says what is raised."""
    return PANEL_RULES.get(name, where=KEY)


def patch_rule(name: str) -> PatchRule:
    """Return a patch rule; `stpatch.registry.Registry.get` says what is raised."""
    return PATCH_RULES.get(name, where=KEY)
