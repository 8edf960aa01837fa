"""Panel rule ``all``: every gene that some slide measured."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from stpatch.expression.rules.base import NamingRule, RuleSpec
from stpatch.expression.rules.registry import register


@register
class All(NamingRule):
    """The union of the slides' genes, sorted by name; ``channels.n`` is ignored."""

    name = "all"
    source = "the sorted vocabulary"

    def names(self, _spec: RuleSpec, measured: Sequence[str], among: Collection[str] | None) -> tuple[str, ...]:
        """See `NamingRule.names`."""
        return tuple(gene for gene in measured if among is None or gene in among)
