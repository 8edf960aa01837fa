"""Variance after a variance-stabilizing transform: the score of ``hvg_seurat_v3``, as scanpy computes it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stpatch.errors import InputError, MissingExtraError
from stpatch.expression.moments import CountMoments, ratio
from stpatch.expression.normalize import BLOCK_VALUES

SPAN = 0.3
DEGREE = 2
MIN_GENES = 10
"""Fewest genes whose 30% are the three points that a parabola needs; below four scikit-misc kills the process."""


def expected_deviation(moments: CountMoments, *, where: object = None) -> NDArray[np.float64]:
    """Return the standard deviation that a gene's mean predicts: a loess of log10 variance on log10 mean.

    Parameters
    ----------
    moments
        Of raw counts.
    where
        For messages.

    Returns
    -------
    numpy.ndarray
        (genes,) float64; 1 for genes that do not vary, which take no part in the fit.

    Raises
    ------
    MissingExtraError
        scikit-misc, which scanpy uses too, is not installed.
    InputError
        The varying genes are too few or their means too similar for a local quadratic fit.
    """
    try:
        from skmisc.loess import loess
    except ImportError as error:
        raise MissingExtraError.of("hvg", needs="scikit-misc", purpose="rule hvg_seurat_v3") from error
    variance = moments.variance
    varies = variance > 0
    trend = np.zeros(len(variance))
    if varies.any():
        if varies.sum() < MIN_GENES:
            raise _no_trend(int(varies.sum()), where)
        model = loess(np.log10(moments.mean[varies]), np.log10(variance[varies]), span=SPAN, degree=DEGREE)
        try:
            model.fit()
        except ValueError as error:
            raise _no_trend(int(varies.sum()), where) from error
        trend[varies] = model.outputs.fitted_values
    return np.sqrt(10**trend)


def _no_trend(n_varying: int, where: object) -> InputError:
    return InputError(
        "the trend of variance over mean cannot be fitted, so rule hvg_seurat_v3 has no scores",
        where=where,
        found=f"{n_varying} genes that vary, too few or with means that are too similar",
        expected="some dozens of genes of different means",
        hint="choose hvg_seurat or variance where slides have few genes",
    )


def clipped_sums(
    counts: sparse.csr_matrix, limit: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return per gene the sum and the sum of squares of counts cut at `limit` (genes,)."""
    n_genes = counts.shape[1]
    total = np.zeros(n_genes)
    squares = np.zeros(n_genes)
    for start in range(0, counts.nnz, BLOCK_VALUES):
        part = slice(start, start + BLOCK_VALUES)
        genes = counts.indices[part]
        values = np.minimum(counts.data[part], limit[genes])
        total += np.bincount(genes, weights=values, minlength=n_genes)
        squares += np.bincount(genes, weights=values * values, minlength=n_genes)
    return total, squares


def clip_limit(moments: CountMoments, deviation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (genes,) count at which a standardized count reaches ``sqrt(n)``."""
    limit: NDArray[np.float64] = deviation * np.sqrt(moments.n) + moments.mean
    return limit


def standardized_variance(
    moments: CountMoments, deviation: NDArray[np.float64], total: NDArray[np.float64], squares: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the variance of standardized, clipped counts from their clipped sums; NaN below two spots."""
    n, mean = moments.n, moments.mean
    # sum of (clipped - mean)**2, expanded, so that zeros need not be visited: their part is n * mean**2
    deviations = n * mean**2 + squares - 2 * total * mean
    return ratio(deviations, (n - 1) * deviation**2, other=np.nan)


def vst_score(counts: sparse.csr_matrix, moments: CountMoments, *, where: object = None) -> NDArray[np.float64]:
    """Return the (genes,) scores of one slide, as ``flavor="seurat_v3"`` of scanpy; NaN for a one-spot slide.

    scanpy cannot fit a slide of one spot and raises there.
    """
    if counts.shape[0] < 2:
        return np.full(counts.shape[1], np.nan)
    deviation = expected_deviation(moments, where=where)
    total, squares = clipped_sums(counts, clip_limit(moments, deviation))
    return standardized_variance(moments, deviation, total, squares)
