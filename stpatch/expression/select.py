"""Panel rules: from the statistics of slides to one ordered list of genes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import ConfigError
from stpatch.expression.pool import GeneAxis, LoadStatistics, PooledStatistics, pool_statistics
from stpatch.expression.rules.base import NamingRule, RuleSpec
from stpatch.expression.statistics import SlideStatistics, require_counts
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
        One slide at a time; `load_slide` is called for pooled rules that pass over the slides again, and for no other.
    pooled
        `pool_statistics` of the same slides, where the caller has them already.
    among
        The genes that may be selected, None for all (``list`` ignores it). Trends, bins and totals are those
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
    one spot nothing at all except for ``mean`` and ``detected``.

    Genes of equal score are in order of name. scanpy ranks with an unstable sort, so its order of equal genes may
    differ.
    """
    if rule.scope == "slide" and len(slide_ids) != 1:
        raise ConfigError("a rule of scope slide looks at one slide", where="channels.scope", found=len(slide_ids))
    method = rule.rule
    if method.scored and rule.scope == "panel" and rule.across_slides == "rank":
        return _rank_panel(rule, slide_ids, load_statistics, among=among)
    if pooled is None:
        pooled = pool_statistics(slide_ids, load_statistics)
    if isinstance(method, NamingRule):
        return _unscored(method.names(rule, pooled.genes, among))
    method.check_normalization(pooled.normalization)
    if method.counts_only:
        require_counts(pooled.counts, rule.method)
    if rule.scope == "slide" and "slide_scores" in method.needs:
        return _slide_panel(rule, load_statistics(slide_ids[0]), among)

    def slides() -> Iterator[tuple[Slide, NDArray[np.int64]]]:
        position = {name: i for i, name in enumerate(pooled.genes)}
        for slide_id in sorted(slide_ids):  # sums round by order: any order of the caller's gives the same bytes
            slide = load_slide(slide_id)
            yield slide, np.array([position[str(name)] for name in slide.genes.index], dtype=np.int64)

    scores = method.score(rule, pooled, slides)
    return best(pooled.genes, np.where(_allowed(pooled.genes, among), scores, np.nan), rule.n)


def _allowed(names: Sequence[str], among: Collection[str] | None) -> NDArray[np.bool_]:
    if among is None:
        return np.ones(len(names), dtype=bool)
    return np.fromiter((name in among for name in names), dtype=bool, count=len(names))


def _slide_panel(rule: RuleSpec, statistics: SlideStatistics, among: Collection[str] | None) -> Panel:
    """Select by scores that the normalize stage has made already."""
    names = statistics.genes
    scores = np.where(_allowed(names, among), rule.rule.score_alone(rule, statistics), np.nan)
    order = sorted(range(len(names)), key=names.__getitem__)
    return best([names[i] for i in order], scores[order], rule.n)


def _rank_panel(
    rule: RuleSpec,
    slide_ids: Sequence[str],
    load_statistics: LoadStatistics,
    *,
    among: Collection[str] | None,
) -> Panel:
    axis, method = GeneAxis(), rule.rule
    join = method.join(rule)
    for slide_id in sorted(slide_ids):
        statistics = load_statistics(slide_id)
        # taken before the slide may be passed over, because its genes belong to the corpus all the same
        positions = axis.positions(statistics.genes)
        if statistics.n_spots < method.min_spots:
            continue
        method.check_normalization(statistics.normalization.method)
        scores = method.score_alone(rule, statistics)
        join.add(positions, scores, statistics, _allowed(statistics.genes, among))
    genes = axis.names
    # the order in which slides brought the genes is an accident of their ids: ties go by name
    by_name = np.argsort(np.asarray(genes, dtype=object), kind="stable")
    ranking = join.ranking(_allowed(genes, among))
    order = by_name[np.lexsort([key[by_name] for key in ranking.keys])]
    order = order[ranking.chosen[order]][: rule.n]
    return Panel(genes=tuple(genes[i] for i in order), scores=ranking.scores[order])


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


def _unscored(names: Sequence[str]) -> Panel:
    return Panel(genes=tuple(names), scores=np.full(len(names), np.nan))
