"""A score per gene from pooled statistics, and from another look at the slides where moments are not enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import ConfigError, InputError, MismatchError
from stpatch.expression.dispersion import cell_ranger_score, seurat_score
from stpatch.expression.moments import CountMoments, ValueMoments, ratio
from stpatch.expression.normalize import spot_totals
from stpatch.expression.pool import PooledStatistics
from stpatch.expression.rules import DISPERSION_METHODS, RuleSpec
from stpatch.expression.statistics import require_counts, residual_variance
from stpatch.expression.vst import clip_limit, clipped_sums, expected_deviation, standardized_variance
from stpatch.slides.slide import Slide

LoadSlide = Callable[[str], Slide]
SlidePass = Iterator[tuple[Slide, NDArray[np.int64]]]


def moment_score(
    method: str, pooled: PooledStatistics, *, among: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """Return the (genes,) score of a rule that needs no second look at the slides; NaN = no score.

    ``hvg_seurat`` looks at the values before logarithm or square root (raw counts with normalization ``none``),
    ``detected`` at the number of spots with a count, all others at the normalized values.

    Parameters
    ----------
    among
        Positions of the genes that the dispersion rules bin and score, where not all; the scores are theirs.

    Raises
    ------
    ConfigError
        A ratio to the mean is asked for of Pearson residuals, whose means are about 0.
    MismatchError
        The statistics lack what ``moran`` needs.
    """
    if method in ("hvg_seurat", "hvg_cell_ranger", "cv") and pooled.normalization == "pearson_residuals":
        raise ConfigError(
            f"rule {method} divides by a gene's mean, and Pearson residuals have means of about 0",
            where="channels.method",
            found="normalize.method: pearson_residuals",
            hint="choose rule pearson_residuals or variance, or another normalization",
        )
    values = pooled.values
    if method in DISPERSION_METHODS:
        score, source = (seurat_score, _linear(pooled)) if method == "hvg_seurat" else (cell_ranger_score, values)
        some = slice(None) if among is None else among
        return score(source.mean[some], source.variance[some])
    if method == "detected":
        return pooled.counts.detected.astype(np.float64)
    if method == "mean":
        return values.mean
    if method == "variance":
        return values.variance
    if method == "cv":
        return ratio(np.sqrt(values.variance), values.mean, where=values.mean > 0, other=np.nan)
    if pooled.moran is None:
        raise MismatchError(
            "slide statistics lack the neighbour sums that rule moran needs",
            where="channels.method",
            hint="run the normalize stage again with this rule in the config",
        )
    return pooled.moran.index


def _linear(pooled: PooledStatistics) -> ValueMoments | CountMoments:
    return pooled.counts if pooled.scaled is None else pooled.scaled


def pooled_count_score(
    rule: RuleSpec,
    pooled: PooledStatistics,
    *,
    slide_ids: Sequence[str],
    load_slide: LoadSlide,
) -> NDArray[np.float64]:
    """Return the (genes,) score of ``hvg_seurat_v3`` or ``pearson_residuals`` as if all spots were one matrix.

    Slides pass once more, one at a time, with the pooled trend (or the pooled shares of genes) fixed. For a gene that
    only some slides measured, the matrix is that of those slides' spots.
    """
    require_counts(pooled.counts, rule.method)
    position = {name: i for i, name in enumerate(pooled.genes)}
    second = _vst if rule.method == "hvg_seurat_v3" else _pearson

    def slides() -> SlidePass:
        for slide_id in sorted(slide_ids):
            slide = load_slide(slide_id)
            yield slide, np.array([position[str(name)] for name in slide.genes.index], dtype=np.int64)

    return second(rule, pooled, slides())


def _vst(rule: RuleSpec, pooled: PooledStatistics, slides: SlidePass) -> NDArray[np.float64]:
    if pooled.counts.n.max(initial=0) < 2:
        return np.full(pooled.size, np.nan)
    deviation = expected_deviation(pooled.counts, where=f"channels.method: {rule.method}")
    limit = clip_limit(pooled.counts, deviation)
    total, squares = np.zeros(pooled.size), np.zeros(pooled.size)
    for slide, positions in slides:
        sums = clipped_sums(slide.counts, limit[positions])
        total[positions] += sums[0]
        squares[positions] += sums[1]
    return standardized_variance(pooled.counts, deviation, total, squares)


def _pearson(rule: RuleSpec, pooled: PooledStatistics, slides: SlidePass) -> NDArray[np.float64]:
    shares = ratio(pooled.counts.total, pooled.reach)
    clip = np.sqrt(pooled.counts.n)
    moments: ValueMoments | None = None
    for slide, positions in slides:
        part = ValueMoments.of_residuals(
            slide.counts, spot_totals(slide.counts), shares=shares[positions], theta=rule.theta, clip=clip[positions]
        ).spread(positions, pooled.size)
        moments = part if moments is None else moments.merged(part)
    if moments is None:
        raise InputError(
            "there are no slides to look at",
            where=f"channels.method: {rule.method}",
            hint="look at the slides that the earlier stages left",
        )
    return residual_variance(moments)
