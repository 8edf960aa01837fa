"""Normalizations of a slide: resolved from the config's words, and applied to sparse slides.

What a normalization computes stands in `stpatch.kernels.formula` and, for residuals, in `stpatch.image.values`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stpatch.errors import ConfigError, InputError
from stpatch.image.values import Recipe, Residuals
from stpatch.kernels.formula import METHODS, NONE, SCALED_METHODS, Formula, normalize_array, spot_scale

BLOCK_VALUES = 1 << 22
"""Stored values in work at once, so that memory stays bounded by the slide's own matrix."""

TargetSum = float | Literal["slide_median", "corpus_median"]


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """A normalization with every number resolved.

    Attributes
    ----------
    method
        ``none``: the counts. ``total``: ``counts * target_sum / total``, the total being the spot's over all measured
        genes. ``log1p_total``, ``sqrt_total``: natural ``log1p`` or square root of that. ``pearson_residuals``:
        analytic Pearson residuals of a negative binomial offset model (Lause et al. 2021, as
        `scanpy.experimental.pp.normalize_pearson_residuals`), clipped to plus and minus ``sqrt(n_spots)``.
    target_sum
        For the methods that scale, else None.
    theta
        Overdispersion, ``pearson_residuals`` only.
    gene_sums
        (genes,) float64, a slide's counts per gene; ``pearson_residuals`` only.
    grand_total
        Sum of `gene_sums` over all measured genes of the slide, also where `gene_sums` holds some of them.
    n_spots
        Spots of the slide.
    """

    method: str
    target_sum: float | None = None
    theta: float = 100.0
    gene_sums: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)
    grand_total: float | None = None
    n_spots: int | None = None

    def __post_init__(self) -> None:
        if self.method in SCALED_METHODS and not (self.target_sum is not None and self.target_sum > 0):
            raise ConfigError(
                f"normalization {self.method} has no positive target_sum",
                where="normalize.target_sum",
                found=self.target_sum,
            )
        if self.method == "pearson_residuals" and (self.gene_sums is None or not self.grand_total or not self.n_spots):
            raise ConfigError(
                "normalization pearson_residuals lacks the slide's gene sums, grand total or spot number",
                where="normalize.method",
                expected="a slide with at least one count",
            )
        if self.method not in (*METHODS, "pearson_residuals"):
            raise ConfigError(f"unknown normalization {self.method!r}", where="normalize.method")

    @property
    def keeps_zeros(self) -> bool:
        """Whether a count of 0 becomes a value of 0, so that sparse stays sparse."""
        return self.method != "pearson_residuals"

    @property
    def recipe(self) -> Recipe:
        """The arithmetic, as images and readers apply it: every number resolved."""
        if self.gene_sums is not None:
            shares = self.gene_sums / float(self.grand_total or 1)
            return Residuals(shares=shares, theta=self.theta, clip=float(self.n_spots or 0) ** 0.5)
        return Formula(method=METHODS[self.method], target_sum=float(self.target_sum or 1.0))

    def of_genes(self, positions: NDArray[np.integer[Any]]) -> Normalization:
        """Return the normalization of some genes of the slide; position -1 (pad) becomes 0 everywhere."""
        if self.gene_sums is None:
            return self
        sums = np.where(positions < 0, 0.0, self.gene_sums[positions])
        return Normalization(
            method=self.method,
            theta=self.theta,
            gene_sums=sums,
            grand_total=self.grand_total,
            n_spots=self.n_spots,
        )


def spot_totals(counts: sparse.csr_matrix) -> NDArray[np.float64]:
    """Return the (spots,) float64 sums over all measured genes."""
    return np.asarray(counts.sum(axis=1, dtype=np.float64), dtype=np.float64).ravel()


def resolve_normalization(
    method: str,
    *,
    target_sum: TargetSum = 1e4,
    theta: float = 100.0,
    counts: sparse.csr_matrix,
    totals: NDArray[np.float64],
    corpus_target: float | None = None,
) -> Normalization:
    """Resolve a slide's normalization from the config's words.

    Parameters
    ----------
    method, target_sum, theta
        As in section ``normalize`` of the config. ``slide_median`` is the median of the slide's positive spot totals
        (the default of `scanpy.pp.normalize_total`); ``corpus_median`` is `corpus_median` over all slides.
    counts
        CSR, (spots, genes), all measured genes.
    totals
        (spots,) float64, sums over all measured genes.
    corpus_target
        The value of `corpus_median`, needed with ``target_sum="corpus_median"`` only.

    Raises
    ------
    InputError
        The slide has no counts, so its median or its residuals are undefined.
    """
    if method in SCALED_METHODS:
        return Normalization(method=method, target_sum=_target(target_sum, totals, corpus_target))
    if method == "pearson_residuals":
        sums = np.asarray(counts.sum(axis=0, dtype=np.float64), dtype=np.float64).ravel()
        if not sums.any():
            raise InputError(
                "a slide has no counts, so Pearson residuals are undefined",
                where="normalize.method",
                hint="take the slide out, or choose another normalize.method",
            )
        return Normalization(
            method=method, theta=theta, gene_sums=sums, grand_total=float(sums.sum()), n_spots=counts.shape[0]
        )
    return Normalization(method=method)


def _target(target_sum: TargetSum, totals: NDArray[np.float64], corpus_target: float | None) -> float:
    if target_sum == "slide_median":
        return corpus_median([totals])
    if target_sum == "corpus_median":
        if corpus_target is None:
            raise ConfigError(
                "target_sum: corpus_median is not known yet",
                where="normalize.target_sum",
                hint="reduce the totals first",
            )
        return corpus_target
    return float(target_sum)


def corpus_median(totals: Iterable[NDArray[np.float64]]) -> float:
    """Return the median of all positive spot totals of all slides, every spot with the same weight.

    The result equals ``np.median`` of the concatenation; slides pass one at a time, and only distinct totals are held.

    Parameters
    ----------
    totals
        A (spots,) float64 array for each slide.
    """
    values = np.zeros(0)
    weights = np.zeros(0, dtype=np.int64)
    for slide in totals:
        distinct, counts = np.unique(slide[slide > 0], return_counts=True)
        joined = np.concatenate([values, distinct])
        values, inverse = np.unique(joined, return_inverse=True)
        both = np.concatenate([weights, counts])
        weights = np.zeros(len(values), dtype=np.int64)
        np.add.at(weights, inverse, both)
    if not len(values):
        raise InputError(
            "no spot has a count, so the median total is undefined",
            where="normalize.target_sum",
            hint="give target_sum a number, or look at the slides' QC",
        )
    upto = np.cumsum(weights)
    middle = np.array([(upto[-1] - 1) // 2, upto[-1] // 2])
    return float(values[np.searchsorted(upto, middle, side="right")].mean())


def value_blocks(
    counts: sparse.csr_matrix,
    totals: NDArray[np.float64],
    normalization: Normalization,
    *,
    block: int = BLOCK_VALUES,
) -> Iterator[tuple[int, int, NDArray[np.float64]]]:
    """Yield ``(start, stop, values)``: the normalized stored values ``data[start:stop]`` in float64, block by block."""
    recipe = normalization.recipe
    if not isinstance(recipe, Formula):  # the caller's choice of a method is at fault, not a type
        raise ValueError(  # noqa: TRY004
            f"{normalization.method} does not keep zeros, so it has no sparse values"
        )
    scale = None if recipe.method == NONE else spot_scale(totals, recipe.target_sum)
    lengths = np.diff(counts.indptr)
    row = 0
    while row < len(lengths):
        # as many whole spots as fit, but always at least one
        end = max(row + 1, int(np.searchsorted(counts.indptr, counts.indptr[row] + block, side="right")) - 1)
        start, stop = int(counts.indptr[row]), int(counts.indptr[end])
        values = counts.data[start:stop].astype(np.float64)
        if scale is not None:
            normalize_array(values, np.repeat(scale[row:end], lengths[row:end]), recipe.method, out=values)
        yield start, stop, values
        row = end


def normalize_csr(
    counts: sparse.csr_matrix, totals: NDArray[np.float64], normalization: Normalization
) -> sparse.csr_matrix:
    """Normalize a slide by a method that keeps zeros.

    Parameters
    ----------
    counts
        CSR, (spots, genes), any subset of the genes.
    totals
        (spots,) float64, sums over all measured genes.

    Returns
    -------
    scipy.sparse.csr_matrix
        float64, same structure.
    """
    data = np.empty(counts.nnz)
    for start, stop, values in value_blocks(counts, totals, normalization):
        data[start:stop] = values
    return sparse.csr_matrix((data, counts.indices, counts.indptr), shape=counts.shape)
