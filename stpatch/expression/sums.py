"""A slide's sums per gene, of counts and of values, made in one pass over its stored counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stpatch.expression.normalize import Normalization
from stpatch.kernels import column_sums as columns
from stpatch.kernels.formula import METHODS, NONE, TOTAL, spot_scale

LARGEST_TABLE = 64
ENTRIES_PER_COUNT = 16
"""Small counts are normalized by a table per spot: so many counts at most, stored entries per tabled count."""
DOUBTFUL = 1e-3
"""Below this share of the sum of squares, squared deviations are summed by themselves: it cost three digits."""


@dataclass(frozen=True, kw_only=True)
class SlideSums:
    """Sums over a slide's stored counts, and what it takes to look at some genes again.

    Attributes
    ----------
    counts
        CSR, (spots, genes).
    scale
        (spots,) float64, target_sum / total; 1 where the normalization does not scale.
    method
        The normalization's number in `stpatch.kernels.formula.METHODS`.
    table
        Scratch for the values of small counts.
    sums
        (genes, columns.COLUMNS) float64.
    """

    counts: sparse.csr_matrix
    scale: NDArray[np.float64]
    method: int
    table: NDArray[np.float64]
    sums: NDArray[np.float64]

    @classmethod
    def over(cls, counts: sparse.csr_matrix, totals: NDArray[np.float64], normalization: Normalization) -> Self:
        """Sum up a slide by a normalization that keeps zeros; `totals` are those of its spots."""
        n_spots, n_genes = counts.shape
        method = METHODS[normalization.method]
        if method == NONE:
            scale, table = np.ones(n_spots), np.empty(0)
        else:
            scale = spot_scale(totals, float(normalization.target_sum or 0))
            table = np.empty(min(max(counts.nnz // max(n_spots, 1) // ENTRIES_PER_COUNT, 2), LARGEST_TABLE))
        sums = np.zeros((n_genes, columns.COLUMNS))
        columns.add_moments((counts.data, counts.indices, counts.indptr), scale, method, table, sums)
        return cls(counts=counts, scale=scale, method=method, table=table, sums=sums)

    @property
    def n(self) -> NDArray[np.int64]:
        """(genes,) number of spots."""
        return np.full(self.counts.shape[1], self.counts.shape[0], dtype=np.int64)

    @property
    def stored(self) -> NDArray[np.int64]:
        """(genes,) number of stored counts."""
        return self.sums[:, columns.STORED].astype(np.int64)

    def count_sums(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the (genes,) sums of counts and of squared counts."""
        return self.sums[:, columns.COUNT].copy(), self.sums[:, columns.COUNT_SQUARES].copy()

    def moments(self, *, scaled: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the values' means and sums of squared deviations.

        Where the mean is so large that plain sums lose the deviations, these are summed in another pass.
        """
        n_spots = self.counts.shape[0]
        total = self.sums[:, columns.SCALED if scaled else columns.VALUE]
        squares = self.sums[:, columns.SCALED_SQUARES if scaled else columns.VALUE_SQUARES]
        mean = total / max(n_spots, 1)
        m2 = squares - total * mean
        doubtful = np.flatnonzero(m2 < DOUBTFUL * squares)
        if len(doubtful):
            slots = np.full(len(mean), -1, np.int32)
            slots[doubtful] = np.arange(len(doubtful))
            careful = (n_spots - self.sums[doubtful, columns.STORED]) * mean[doubtful] ** 2
            method = TOTAL if scaled else self.method
            rows = (self.counts.data, self.counts.indices, self.counts.indptr)
            columns.add_deviations(rows, self.scale, method, self.table, slots, mean[doubtful], careful)
            m2[doubtful] = careful
        return mean, m2
