"""Panel rules: from the statistics of slides to one ordered list of genes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import ConfigError, StpatchError, one_or_many
from stpatch.expression.pool import LoadStatistics, PooledStatistics, pool_statistics
from stpatch.expression.rules import RuleSpec
from stpatch.slides.slide import Slide

LoadSlide = Callable[[str], Slide]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Selected genes.

    Attributes
    ----------
    genes
        Vocabulary names, best first (``list``: as given; ``all``: sorted).
    scores
        (genes,) float64, what they were ranked by; NaN for ``list`` and ``all``.
    """

    genes: tuple[str, ...]
    scores: NDArray[np.float64]


def select_panel(
    rule: RuleSpec,
    *,
    slide_ids: Sequence[str],
    load_statistics: LoadStatistics,
    load_slide: LoadSlide,
    pooled: PooledStatistics | None = None,
    by_organism: bool = False,
) -> Panel:
    """Select genes.

    Parameters
    ----------
    rule
        The rule; with one slide in `slide_ids` and ``across_slides="pooled"`` it is the rule of scope ``slide``.
    slide_ids
        The slides to look at, in any order.
    load_statistics, load_slide
        One slide at a time; `load_slide` is called by pooled ``hvg_seurat_v3`` and ``pearson_residuals`` only.
    pooled
        `pool_statistics` of the same slides, where the caller has them already.
    by_organism
        Name genes ``organism:gene``.

    Returns
    -------
    Panel
        At most ``rule.n`` genes; fewer where fewer have a score.
    """
    pooled = pool_statistics(slide_ids, load_statistics, by_organism=by_organism) if pooled is None else pooled
    if rule.method == "all":
        return _unscored(pooled.genes)
    if rule.method == "list":
        return _unscored(check_list(rule.genes, pooled.genes))
    scores = simple_score(rule.method, pooled)
    return best(pooled.genes, scores, rule.n)


def simple_score(method: str, pooled: PooledStatistics) -> NDArray[np.float64]:
    """Return the (genes,) score of a rule that ranks by one moment."""
    if method == "detected":
        return pooled.counts.detected.astype(np.float64)
    if method == "mean":
        return pooled.values.mean
    if method == "variance":
        return pooled.values.variance
    mean = pooled.values.mean
    return np.divide(np.sqrt(pooled.values.variance), mean, out=np.full(len(mean), np.nan), where=mean > 0)


def best(genes: Sequence[str], scores: NDArray[np.float64], n: int) -> Panel:
    """Return the `n` genes of the highest scores; equal scores in order of name, NaN never.

    Parameters
    ----------
    genes
        Sorted names.
    scores
        (genes,) float64.
    """
    order = np.argsort(-scores, kind="stable")
    order = order[~np.isnan(scores[order])][:n]
    return Panel(genes=tuple(genes[i] for i in order), scores=scores[order])


def check_list(names: Sequence[str], measured: Sequence[str]) -> tuple[str, ...]:
    """Return `names` if every one is measured and none is repeated.

    Raises
    ------
    ConfigError, ProblemsError
        Every name that no slide measured, with the nearest measured ones.
    """
    known = set(measured)
    problems: list[StpatchError] = []
    for name in dict.fromkeys(names):
        if name not in known:
            near = difflib.get_close_matches(name, measured, n=3, cutoff=0.6)
            mend = f"did you mean {' or '.join(map(repr, near))}?" if near else "take it off the list"
            problems.append(
                ConfigError(f"no slide measured gene {name!r}", where="channels.genes", found=repr(name), mend=mend)
            )
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        problems.append(
            ConfigError(
                "genes are listed twice", where="channels.genes", found=", ".join(repeated), mend="list each once"
            )
        )
    if problems:
        raise one_or_many(problems)
    return tuple(names)


def _unscored(names: Sequence[str]) -> Panel:
    return Panel(genes=tuple(names), scores=np.full(len(names), np.nan))
