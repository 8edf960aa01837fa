"""Normalized dispersions: the scores of ``hvg_seurat`` and ``hvg_cell_ranger``, as scanpy computes them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

N_BINS = 20
PERCENTILES = np.arange(10, 105, 5)
NORMAL_QUARTILE = 0.6744897501960817
"""Median absolute deviation of the standard normal distribution."""
NO_MEAN = 1e-12
"""Mean that scanpy gives to a gene without counts."""


def seurat_score(mean: NDArray[np.float64], variance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return normalized dispersions as ``scanpy.pp.highly_variable_genes(flavor="seurat")``.

    The logarithm of variance / mean, standardized within 20 bins of equal width of ``log1p(mean)``; a gene alone in its
    bin gets 1. A gene that does not vary has no dispersion, so it is NaN and never selected.

    Parameters
    ----------
    mean, variance
        (genes,) of the values before the logarithm (scanpy takes the logarithm back by ``expm1``); variance with n - 1.
    """
    if not len(mean):
        return np.zeros(0)
    mean = np.where(mean == 0, NO_MEAN, mean)
    ratio = variance / mean
    dispersion = np.log(ratio, out=np.full(len(ratio), np.nan), where=ratio > 0)
    # pandas cuts and averages for scanpy too: the same bins, and the same sums to the last bit
    grouped = pd.Series(dispersion).groupby(pd.cut(np.log1p(mean), bins=N_BINS, labels=False))
    average = grouped.transform("mean").to_numpy(dtype=np.float64, copy=True)
    deviation = grouped.transform("std").to_numpy(dtype=np.float64, copy=True)
    alone = np.isnan(deviation)
    deviation[alone] = average[alone]
    average[alone] = 0.0
    return _standardized(dispersion, average, deviation)


def cell_ranger_score(mean: NDArray[np.float64], variance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return normalized dispersions as ``scanpy.pp.highly_variable_genes(flavor="cell_ranger")``.

    Variance / mean, its distance from the median of its bin in units of the bin's median absolute deviation; the bins
    lie between the 10th, 15th, ... and 100th percentile of the means. Where percentiles coincide (many genes without
    counts) scanpy raises; here equal edges are one. In a bin without deviation the scores are infinite or, at the
    median, NaN, as in scanpy.

    Parameters
    ----------
    mean, variance
        (genes,) of the normalized values; variance with n - 1.
    """
    if not len(mean):
        return np.zeros(0)
    mean = np.where(mean == 0, NO_MEAN, mean)
    dispersion = variance / mean
    edges = np.unique(np.r_[-np.inf, np.percentile(mean, PERCENTILES), np.inf])
    which = np.searchsorted(edges, mean, side="left")
    center = np.empty(len(mean))
    deviation = np.empty(len(mean))
    for number in np.unique(which):
        inside = which == number
        center[inside] = np.median(dispersion[inside])
        deviation[inside] = np.median(np.abs(dispersion[inside] - center[inside]) / NORMAL_QUARTILE)
    return _standardized(dispersion, center, deviation)


def _standardized(
    values: NDArray[np.float64], center: NDArray[np.float64], deviation: NDArray[np.float64]
) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        scores: NDArray[np.float64] = (values - center) / deviation
    return scores
