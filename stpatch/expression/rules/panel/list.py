"""Panel rule ``list``: the genes that the config gives."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence

from stpatch.errors import ConfigError, StpatchError, one_or_many
from stpatch.expression.rules.base import NamingRule, RuleSpec
from stpatch.expression.rules.registry import register

MOST_PROBLEMS = 10
"""Unknown names that get an answer each."""


@register
class Listed(NamingRule):
    """The genes of ``channels.genes`` in their order, each measured by some slide; ``channels.n`` is ignored."""

    name = "list"
    source = "the config"
    needs_genes = True

    def names(self, spec: RuleSpec, measured: Sequence[str], _among: Collection[str] | None) -> tuple[str, ...]:
        """See `NamingRule.names`; genes that may not be selected are told by the caller, which knows why."""
        return check_list(spec.genes, measured)


def check_list(names: Sequence[str], measured: Sequence[str]) -> tuple[str, ...]:
    """Return `names` if every one is measured and none is repeated.

    Raises
    ------
    ConfigError, ProblemsError
        The names that no slide measured, with the nearest measured ones; the names that are repeated.
    """
    known = set(measured)
    unknown = [name for name in dict.fromkeys(names) if name not in known]
    folded = {name.casefold(): name for name in measured}
    problems: list[StpatchError] = [_unknown(name, folded) for name in unknown[:MOST_PROBLEMS]]
    if len(unknown) > MOST_PROBLEMS:
        rest = ", ".join(unknown[MOST_PROBLEMS : 2 * MOST_PROBLEMS])
        problems.append(
            ConfigError(
                f"no slide measured {len(unknown)} of the {len(names)} listed genes",
                where="channels.genes",
                found=f"besides those above {rest}{', ...' if len(unknown) > 2 * MOST_PROBLEMS else ''}",
                expected=f"names such as {', '.join(measured[:3])}",
                hint="check organism and ingest.genes.identity, or take the names off the list",
            )
        )
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        problems.append(
            ConfigError(
                "genes are listed twice", where="channels.genes", found=", ".join(repeated), hint="list each once"
            )
        )
    if problems:
        raise one_or_many(problems)
    return tuple(names)


def _unknown(name: str, folded: Mapping[str, str]) -> ConfigError:
    near = [folded[text] for text in difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.6)]
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "take it off the list"
    return ConfigError(f"no slide measured gene {name!r}", where="channels.genes", found=repr(name), hint=hint)
