"""Per-gene moments of a slide's windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.kernels import window_sums as kernels
from stpatch.kernels.formula import NONE, Formula
from stpatch.kernels.window import GridPart, SlideArrays

LARGEST_TABLE = 64
TABLE_BYTES = 48 << 20
ENTRIES_PER_COUNT = 16
"""Small counts are normalized by table, one per spot: so many counts, bytes in all, stored entries per tabled count."""
_NO_SLOTS = np.empty((0, 4))


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Moments of normalized values over a window's occupied pixels (those with a spot).

    Attributes
    ----------
    n_pixels
        Number of occupied pixels.
    mean, variance
        (genes,) float64. The variance is the population's (divided by `n_pixels`): as weights, every denominator is the
        same. A gene with one value in all occupied pixels has a variance of exactly 0.
    """

    n_pixels: int
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]

    def of_genes(self, positions: NDArray[np.integer[Any]]) -> Moments:
        """Return the moments of some genes."""
        return Moments(n_pixels=self.n_pixels, mean=self.mean[positions], variance=self.variance[positions])


class WindowMoments:
    """Moments of one slide's windows by a normalization that keeps zeros, with buffers that all windows share.

    A window's moments depend on the window alone. One pass adds values and squares. Where their difference says little
    (a gene that hardly varies: its variance is below 1e-6 of its squared mean), a second pass over these few genes
    takes value minus the gene's value in the first occupied pixel: as that is one of the values summed, the variance
    keeps its digits whatever the mean (Chan, Golub and LeVeque 1983), and a constant gene gives exact zeros.

    Parameters
    ----------
    slide
        Counts and grid, checked.
    n_genes
        Number of measured genes.
    formula
        The normalization; its totals are over all measured genes.
    averaged
        Whether a pixel of several spots holds the mean of their values, not the value of their sum.
    """

    def __init__(self, slide: SlideArrays, *, n_genes: int, formula: Formula, averaged: bool) -> None:
        self._slide, self._formula, self._averaged = slide, formula, averaged
        n_spots = len(slide.spot_totals)
        self._buffers = kernels.SumBuffers.of(n_genes=n_genes, n_spots=n_spots, table_size=self._table_size(n_spots))
        self._mean, self._variance = np.empty(n_genes), np.empty(n_genes)

    def measure(self, part: GridPart) -> Moments:
        """Return the moments of a window's part on the grid, which the next call overwrites; without spots, zeros."""
        mean, variance = self._mean, self._variance
        n_pixels = self._sum(part, _NO_SLOTS)
        if not n_pixels:
            mean[:] = variance[:] = 0.0
        elif kernels.moments_of_sums(self._buffers.sums, n_pixels, mean, variance):
            self._measure_carefully(part, n_pixels)
        return Moments(n_pixels=n_pixels, mean=mean, variance=variance)

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers."""
        return self._buffers.tables.nbytes + self._buffers.sums.nbytes * 4

    def _table_size(self, n_spots: int) -> int:
        """Return how many small counts are worth a table: none where nothing is computed."""
        if self._formula.method == NONE or n_spots == 0:
            return 0
        pays = len(self._slide.data) // n_spots // ENTRIES_PER_COUNT
        return max(min(pays, LARGEST_TABLE, TABLE_BYTES // (8 * n_spots)), 4)

    def _sum(self, part: GridPart, careful: NDArray[np.float64]) -> int:
        return int(kernels.sum_window(self._slide, part, self._formula, self._averaged, self._buffers, careful))

    def _measure_carefully(self, part: GridPart, n_pixels: int) -> None:
        genes, slots = np.flatnonzero(self._variance < 0), self._buffers.slots
        if n_pixels == 1:
            self._variance[genes] = 0.0
            return
        slots[genes] = np.arange(len(genes), dtype=np.int32)
        careful = np.empty((len(genes), 4))
        self._sum(part, careful)
        slots[genes] = -1
        kernels.careful_moments(careful, n_pixels, genes, self._mean, self._variance)


def dense_moments(block: NDArray[np.float32], occupied: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the means and variances of dense values over occupied pixels.

    As in the careful pass of `WindowMoments`, values are taken minus the first one.

    Parameters
    ----------
    block
        (genes, height, width).
    occupied
        Flat pixels, at least one.
    """
    values = block.reshape(len(block), -1)[:, occupied].astype(np.float64)
    first = values[:, :1]
    offset = (values - first).mean(axis=1)
    return first[:, 0] + offset, np.square(values - first - offset[:, None]).mean(axis=1)
