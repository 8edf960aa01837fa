"""Panel rules: from the statistics of slides to one ordered list of genes."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import ConfigError, MismatchError, StpatchError, one_or_many
from stpatch.expression.pool import GeneAxis, LoadStatistics, PooledStatistics, pool_statistics, pooled_of
from stpatch.expression.rank import DispersionJoin, RankJoin
from stpatch.expression.rules import COUNT_METHODS, DISPERSION_METHODS, RuleSpec
from stpatch.expression.score import LoadSlide, moment_score, pooled_count_score
from stpatch.expression.statistics import SlideStatistics

MOST_PROBLEMS = 10
"""Unknown names that get an answer each."""


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
    among: Collection[str] | None = None,
) -> Panel:
    """Select genes.

    Parameters
    ----------
    rule
        The rule. Scope ``slide`` takes one slide.
    slide_ids
        The slides to look at, in any order.
    load_statistics, load_slide
        One slide at a time; `load_slide` is called by ``hvg_seurat_v3`` and ``pearson_residuals`` pooled over slides
        only.
    pooled
        `pool_statistics` of the same slides, where the caller has them already.
    among
        The genes that may be selected, None for all (``list`` takes no notice of it). Trends, bins and totals are those
        of all measured genes; ranks count the selectable ones.

    Returns
    -------
    Panel
        At most ``rule.n`` genes; fewer where fewer have a score.

    Notes
    -----
    Pooled rules see all spots as one matrix; a gene's numbers are over the spots of the slides that measured it
    (``detected`` is the plain number of spots with a count). Pooled ``moran`` keeps what differs between slides.

    Ranked over slides, ``hvg_seurat`` and ``hvg_cell_ranger`` sort by the number of slides that have the gene in their
    top n, then by mean normalized dispersion; ``hvg_seurat_v3`` by median rank, then number of slides;
    ``pearson_residuals`` by number of slides, then median rank: each as its scanpy function does with `batch_key`. The
    other rules follow ``pearson_residuals``. A slide that did not measure a gene says nothing about it, and a slide of
    one spot nothing at all but for ``mean`` and ``detected``.

    Genes of equal score are in order of name. scanpy ranks with an unstable sort, so its order of equal genes may
    differ.
    """
    if rule.scope == "slide" and len(slide_ids) != 1:
        raise ConfigError("a rule of scope slide looks at one slide", where="channels.scope", found=len(slide_ids))
    if rule.scope == "panel" and rule.across_slides == "rank" and rule.method not in ("list", "all"):
        return _rank_panel(rule, slide_ids, load_statistics, among=among)
    if pooled is None:
        pooled = pool_statistics(slide_ids, load_statistics)
    if rule.method == "all":
        return _unscored([gene for gene in pooled.genes if among is None or gene in among])
    if rule.method == "list":
        return _unscored(check_list(rule.genes, pooled.genes))
    if rule.method in COUNT_METHODS:
        if rule.scope == "slide":
            return _slide_panel(rule, load_statistics(slide_ids[0]), among)
        scores = pooled_count_score(rule, pooled, slide_ids=slide_ids, load_slide=load_slide)
    else:
        scores = moment_score(rule.method, pooled)
    return best(pooled.genes, np.where(_allowed(pooled.genes, among), scores, np.nan), rule.n)


def _allowed(names: Sequence[str], among: Collection[str] | None) -> NDArray[np.bool_]:
    if among is None:
        return np.ones(len(names), dtype=bool)
    return np.fromiter((name in among for name in names), dtype=bool, count=len(names))


def _slide_panel(rule: RuleSpec, statistics: SlideStatistics, among: Collection[str] | None) -> Panel:
    """Select by scores that the normalize stage has made already."""
    names = statistics.genes
    scores = np.where(_allowed(names, among), _slide_score(rule, statistics), np.nan)
    order = sorted(range(len(names)), key=names.__getitem__)
    return best([names[i] for i in order], scores[order], rule.n)


def _rank_panel(
    rule: RuleSpec,
    slide_ids: Sequence[str],
    load_statistics: LoadStatistics,
    *,
    among: Collection[str] | None,
) -> Panel:
    axis = GeneAxis()
    by_dispersion = rule.method in DISPERSION_METHODS
    ranks, dispersions = RankJoin(n=rule.n), DispersionJoin(n=rule.n)
    for slide_id in sorted(slide_ids):
        statistics = load_statistics(slide_id)
        names = statistics.genes
        positions = axis.positions(names)
        if statistics.n_spots < 2 and rule.method not in ("mean", "detected"):
            continue  # nothing varies over one spot
        allowed = _allowed(names, among)
        if by_dispersion:
            scores, expressed = _dispersions(rule.method, statistics)
            dispersions.add(positions, scores, expressed & allowed, len(axis))
        else:
            ranks.add(positions, np.where(allowed, _slide_score(rule, statistics), np.nan), names)
    genes = axis.names
    by_name = np.argsort(np.asarray(genes, dtype=object), kind="stable")
    if by_dispersion:
        dispersions.grow(len(axis))
        scores, n_top = dispersions.mean(), dispersions.n_top
        chosen = _allowed(genes, among)
        keys = [-scores, -n_top]  # the last key is the first to sort by; NaN goes last
    else:
        n_top, scores = ranks.joined(len(axis))
        chosen = n_top > 0
        keys = [-n_top, scores] if rule.method == "hvg_seurat_v3" else [scores, -n_top]
    order = by_name[np.lexsort([key[by_name] for key in keys])]
    order = order[chosen[order]][: rule.n]
    return Panel(genes=tuple(genes[i] for i in order), scores=scores[order])


def _dispersions(method: str, statistics: SlideStatistics) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the slide's normalized dispersions among its expressed genes, and which those are."""
    expressed = statistics.counts.detected > 0
    # in order of name, because sums over a bin round by order, and scores of small bins are often equal
    by_name = np.array(sorted(np.flatnonzero(expressed).tolist(), key=statistics.genes.__getitem__), dtype=np.int64)
    scores = np.full(len(expressed), np.nan)
    scores[by_name] = moment_score(method, pooled_of(statistics), among=by_name)
    return scores, expressed


def _slide_score(rule: RuleSpec, statistics: SlideStatistics) -> NDArray[np.float64]:
    if rule.method not in COUNT_METHODS:
        return moment_score(rule.method, pooled_of(statistics))
    key = str(rule.score_key)
    if key not in statistics.scores:
        raise MismatchError(
            f"slide statistics lack the scores of rule {rule.method}",
            where=statistics.slide_id,
            hint="run the normalize stage again with this rule in the config",
        )
    return statistics.scores[key]


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


def _unscored(names: Sequence[str]) -> Panel:
    return Panel(genes=tuple(names), scores=np.full(len(names), np.nan))
