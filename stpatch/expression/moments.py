"""Per-gene moments that merge exactly, so that pooled statistics equal those of the concatenated slides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stpatch.errors import InputError
from stpatch.expression.normalize import BLOCK_VALUES, Normalization
from stpatch.image.values import residuals
from stpatch.kernels.formula import SCALED_METHODS

if TYPE_CHECKING:  # its compiled loops are loaded where moments are made, not where they are merged
    from stpatch.expression.sums import SlideSums

EXACT_FLOAT = 2.0**53
Positions = NDArray[np.integer[Any]]


@dataclass(frozen=True, kw_only=True)
class CountMoments:
    """Sums of raw counts per gene; integers for counts, float64 where the input is normalized already.

    Attributes
    ----------
    n
        (genes,) int64, spots of the slides that measured the gene.
    total, squares
        (genes,) int64 or float64, sum of counts and of squared counts.
    detected
        (genes,) int64, spots with a count above 0.
    """

    n: NDArray[np.int64]
    total: NDArray[Any]
    squares: NDArray[Any]
    detected: NDArray[np.int64]

    @classmethod
    def of(cls, counts: sparse.csr_matrix) -> Self:
        """Sum up a CSR matrix, (spots, genes), of non-negative values without stored zeros."""
        from stpatch.expression.sums import SlideSums

        return cls.of_sums(SlideSums.over(counts, np.empty(0), Normalization(method="none")))

    @classmethod
    def of_sums(cls, sums: SlideSums) -> Self:
        """Return the moments of the counts that were summed."""
        total, squares = sums.count_sums()
        if np.issubdtype(sums.counts.dtype, np.integer):
            if squares.max(initial=0) >= EXACT_FLOAT:
                raise InputError(
                    "counts are too large to be summed exactly",
                    found=f"largest count {int(sums.counts.data.max())}",
                    expected="sums of squares below 2**53 per gene",
                    hint="check that the matrix holds counts",
                )
            total, squares = total.astype(np.int64), squares.astype(np.int64)
        return cls(n=sums.n, total=total, squares=squares, detected=sums.stored)

    def scatter_to_axis(self, positions: Positions, size: int) -> Self:
        """Return the moments on an axis of `size` genes; a gene that is not in `positions` has n = 0."""
        return type(self)(
            n=scatter_to_axis(self.n, positions, size),
            total=scatter_to_axis(self.total, positions, size),
            squares=scatter_to_axis(self.squares, positions, size),
            detected=scatter_to_axis(self.detected, positions, size),
        )

    def merged(self, other: Self) -> Self:
        """Return the moments of both sets of spots (same genes)."""
        return type(self)(
            n=self.n + other.n,
            total=self.total + other.total,
            squares=self.squares + other.squares,
            detected=self.detected + other.detected,
        )

    @property
    def mean(self) -> NDArray[np.float64]:
        """(genes,) mean count, 0 where no spot measured the gene."""
        return ratio(self.total, self.n)

    @property
    def variance(self) -> NDArray[np.float64]:
        """(genes,) variance with n - 1, exact in its difference for integers; 0 below two spots."""
        if self.total.dtype.kind == "i":
            # Python integers: n * squares leaves 64 bits
            n, total, squares = (part.astype(object) for part in (self.n, self.total, self.squares))
            deviations = (n * squares - total * total).astype(np.float64)
        else:
            deviations = np.maximum(self.n * self.squares - self.total * self.total, 0.0)
        return ratio(deviations, self.n * (self.n - 1.0))


@dataclass(frozen=True, kw_only=True)
class ValueMoments:
    """Mean and sum of squared deviations per gene, merged by Chan's formula in float64.

    Attributes
    ----------
    n
        (genes,) int64, spots of the slides that measured the gene.
    mean
        (genes,) float64.
    m2
        (genes,) float64, sum over spots of ``(value - mean)**2``.
    """

    n: NDArray[np.int64]
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]

    @classmethod
    def of(cls, counts: sparse.csr_matrix, totals: NDArray[np.float64], normalization: Normalization) -> Self:
        """Return the moments of a slide's normalized values.

        Parameters
        ----------
        counts
            CSR, (spots, genes), all measured genes.
        totals
            (spots,) float64, sums over all measured genes.
        """
        if normalization.gene_sums is not None:
            shares = normalization.gene_sums / float(normalization.grand_total or 1)
            clip = np.full(counts.shape[1], float(counts.shape[0]) ** 0.5)
            return cls.of_residuals(counts, totals, shares=shares, theta=normalization.theta, clip=clip)
        from stpatch.expression.sums import SlideSums

        return cls.of_sums(SlideSums.over(counts, totals, normalization))

    @classmethod
    def of_sums(cls, sums: SlideSums, *, scaled: bool = False) -> Self:
        """Return the moments of the normalized values that were summed, or of the scaled ones."""
        mean, m2 = sums.moments(scaled=scaled)
        return cls(n=sums.n, mean=mean, m2=m2)

    @classmethod
    def of_residuals(
        cls,
        counts: sparse.csr_matrix,
        totals: NDArray[np.float64],
        *,
        shares: NDArray[np.float64],
        theta: float,
        clip: NDArray[np.float64],
    ) -> Self:
        """Return the moments of clipped Pearson residuals without making them dense.

        The residual of a zero depends on gene and spot total alone, so zeros are summed once per distinct total, and
        the stored counts correct them.

        Parameters
        ----------
        shares
            (genes,) expected share of a spot's total that is the gene's.
        clip
            (genes,) largest absolute residual.
        """
        n_spots, n_genes = counts.shape
        distinct, which = np.unique(totals, return_inverse=True)
        weights = np.bincount(which, minlength=len(distinct)).astype(np.float64)
        step = max(1, BLOCK_VALUES // max(n_genes, 1))
        spot = np.repeat(np.arange(n_spots, dtype=np.int32), np.diff(counts.indptr))

        def sums(center: NDArray[np.float64], power: int) -> NDArray[np.float64]:
            """Sum ``(residual - center)**power`` over all spots."""
            result = np.zeros(n_genes)
            for start in range(0, len(distinct), step):
                part = slice(start, start + step)
                zeros = residuals(0, distinct[part, None] * shares, theta=theta, clip=clip)
                # no matrix product: BLAS rounds a column by its place, and equal genes would no longer be equal
                result += (weights[part, None] * (zeros - center) ** power).sum(axis=0)
            for start in range(0, counts.nnz, BLOCK_VALUES):
                stored = slice(start, start + BLOCK_VALUES)
                genes = counts.indices[stored]
                mu = totals[spot[stored]] * shares[genes]
                here = residuals(counts.data[stored], mu, theta=theta, clip=clip[genes]) - center[genes]
                zero = residuals(0, mu, theta=theta, clip=clip[genes]) - center[genes]
                result += np.bincount(genes, weights=here**power - zero**power, minlength=n_genes)
            return result

        mean = sums(np.zeros(n_genes), 1) / max(n_spots, 1)
        m2 = np.maximum(sums(mean, 2), 0.0)
        return cls(n=np.full(n_genes, n_spots, dtype=np.int64), mean=mean, m2=m2)

    def scatter_to_axis(self, positions: Positions, size: int) -> Self:
        """Return the moments on an axis of `size` genes; a gene that is not in `positions` has n = 0."""
        return type(self)(
            n=scatter_to_axis(self.n, positions, size),
            mean=scatter_to_axis(self.mean, positions, size),
            m2=scatter_to_axis(self.m2, positions, size),
        )

    def merged(self, other: Self) -> Self:
        """Return the moments of both sets of spots (same genes)."""
        n = self.n + other.n
        share = ratio(other.n, n)
        delta = other.mean - self.mean
        return type(self)(n=n, mean=self.mean + delta * share, m2=self.m2 + other.m2 + delta * delta * self.n * share)

    @property
    def variance(self) -> NDArray[np.float64]:
        """(genes,) variance with n - 1, 0 below two spots; what rounding leaves of a constant gene counts as 0."""
        rounding = self.n * (self.n * np.finfo(np.float64).eps * self.mean) ** 2
        return ratio(np.where(self.m2 <= rounding, 0.0, self.m2), self.n - 1.0)


def slide_moments(
    counts: sparse.csr_matrix, totals: NDArray[np.float64], normalization: Normalization
) -> tuple[CountMoments, ValueMoments, ValueMoments | None]:
    """Return the moments of a slide's counts, of its normalized values and of its scaled values, in one pass.

    Scaled values are those before logarithm or square root (``counts * target_sum / total``); None where the
    normalization does not scale. Arguments as in `ValueMoments.of`.
    """
    if normalization.gene_sums is not None:
        return CountMoments.of(counts), ValueMoments.of(counts, totals, normalization), None
    from stpatch.expression.sums import SlideSums

    sums = SlideSums.over(counts, totals, normalization)
    values = ValueMoments.of_sums(sums)
    scaled = None
    if normalization.method in SCALED_METHODS:
        scaled = values if normalization.method == "total" else ValueMoments.of_sums(sums, scaled=True)
    return CountMoments.of_sums(sums), values, scaled


def scatter_to_axis(part: NDArray[Any], positions: Positions, size: int) -> NDArray[Any]:
    """Return the numbers of some genes on an axis of `size` genes: at `positions` theirs, elsewhere 0."""
    full = np.zeros(size, dtype=part.dtype)
    full[positions] = part
    return full


def ratio(
    part: NDArray[Any], whole: NDArray[Any], *, where: NDArray[np.bool_] | None = None, other: float = 0.0
) -> NDArray[np.float64]:
    """Return ``part / whole`` in float64; `other` where `whole` is not positive, or outside `where`."""
    result = np.full(len(part), other)
    np.divide(part, whole, out=result, where=whole > 0 if where is None else where)
    return result
