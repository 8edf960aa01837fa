"""Per-gene moments of a window, and its normalized values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.expression.normalize import Normalization, normalize_dense
from stpatch.image.panel import PanelImage
from stpatch.image.slide_image import SlideImage
from stpatch.kernels import window as kernels

GENES_AT_ONCE = 1024
"""Genes in a dense block, where a normalization has no sparse values."""
LARGEST_TABLE = 64
TABLE_BYTES = 48 << 20
ENTRIES_PER_COUNT = 16
"""Small counts are normalized by table, one a spot: so many counts, bytes in all, stored entries a tabled count."""
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
    """Moments of one slide's windows, with buffers that all windows share.

    A window's moments depend on the window alone. One pass adds values and squares. Where their difference says little
    (a gene that hardly varies: its variance is below 1e-6 of its squared mean), a second pass over these few genes
    takes value minus the gene's value in the first occupied pixel: as that is one of the values summed, the variance
    keeps its digits whatever the mean (Chan, Golub and LeVeque 1983), and a constant gene gives exact zeros.
    """

    def __init__(self, image: SlideImage, normalization: Normalization) -> None:
        """Prepare the buffers.

        Parameters
        ----------
        image
            The slide.
        normalization
            The slide's; its totals are over all measured genes.
        """
        if image.data.dtype.kind == "f" and normalization.method != "none":
            raise ValueError(f"values that are normalized already cannot be normalized by {normalization.method}")
        n_genes = image.n_genes
        self._image = image
        self._normalization = normalization
        self._n_genes = n_genes
        self._sums = np.empty((n_genes, 2))
        self._slots = np.full(n_genes, -1, dtype=np.int32)
        self._method = kernels.METHOD_CODES.get(normalization.method, kernels.NONE)
        self._target_sum = float(normalization.target_sum or 1.0)
        self._dense = np.zeros(n_genes)
        self._seen = np.zeros(n_genes, dtype=np.bool_)
        self._genes = np.empty(n_genes, dtype=np.int32)
        self._values = np.empty(n_genes)
        self._mean = np.empty(n_genes)
        self._variance = np.empty(n_genes)
        self._tables = np.empty((max(len(image.spot_totals), 1), self._table_size()))
        self._tabled = np.zeros(len(self._tables), dtype=np.bool_)

    def measure(self, row: int, col: int, height: int, width: int) -> Moments:
        """Return a window's moments, which the next call overwrites; a window without spots has zeros."""
        mean, variance = self._mean, self._variance
        place = (row, col, height, width)
        if not self._normalization.keeps_zeros:
            n_pixels = self._measure_dense(place, mean, variance)
        else:
            n_pixels = self._sum(place, _NO_SLOTS)
            if n_pixels and kernels.moments_of_sums(self._sums, n_pixels, mean, variance):
                self._measure_carefully(place, n_pixels, mean, variance)
        if not n_pixels:
            mean[:] = variance[:] = 0.0
        return Moments(n_pixels=n_pixels, mean=mean, variance=variance)

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers."""
        return self._tables.nbytes + self._sums.nbytes * 4

    def _table_size(self) -> int:
        """Return how many small counts are worth a table: none where nothing is computed."""
        n_spots = len(self._image.spot_totals)
        if self._method == kernels.NONE or n_spots == 0:
            return 0
        pays = len(self._image.data) // n_spots // ENTRIES_PER_COUNT
        return max(min(pays, LARGEST_TABLE, TABLE_BYTES // (8 * n_spots)), 4)

    def _sum(self, place: tuple[int, int, int, int], careful: NDArray[np.float64]) -> int:
        image = self._image
        n_pixels: int = kernels.sum_window(
            image.data, image.indices, image.indptr, image.spot_totals,
            image.pixel_start, image.pixel_spots, image.shape[1], image.window(*place),
            self._target_sum, self._method, kernels.AVERAGED if image.collisions == "mean" else kernels.SUMMED,
            self._tables, self._tabled, self._dense, self._seen, self._genes, self._values,
            self._sums, self._slots, careful,
        )  # fmt: skip
        return n_pixels

    def _measure_carefully(
        self,
        place: tuple[int, int, int, int],
        n_pixels: int,
        mean: NDArray[np.float64],
        variance: NDArray[np.float64],
    ) -> None:
        genes = np.flatnonzero(variance < 0)
        if n_pixels == 1:
            variance[genes] = 0.0
            return
        self._slots[genes] = np.arange(len(genes), dtype=np.int32)
        careful = np.empty((len(genes), 4))
        self._sum(place, careful)
        self._slots[genes] = -1
        kernels.careful_moments(careful, n_pixels, genes, mean, variance)

    def _measure_dense(
        self,
        place: tuple[int, int, int, int],
        mean: NDArray[np.float64],
        variance: NDArray[np.float64],
    ) -> int:
        image = self._image
        occupied = np.flatnonzero(occupied_pixels(image, *place))
        if not len(occupied):
            return 0
        for start in range(0, self._n_genes, GENES_AT_ONCE):
            genes = np.arange(start, min(start + GENES_AT_ONCE, self._n_genes), dtype=np.int32)
            block = gather_normalized(image, *place, genes, self._normalization)
            values = block.reshape(len(genes), -1)[:, occupied].astype(np.float64)
            first = values[:, :1]
            offset = (values - first).mean(axis=1)
            mean[genes] = first[:, 0] + offset
            variance[genes] = np.square(values - first - offset[:, None]).mean(axis=1)
        return len(occupied)


def occupied_pixels(image: SlideImage, row: int, col: int, height: int, width: int) -> NDArray[np.bool_]:
    """Return (height, width) bool: where the window has a spot."""
    out = np.zeros((height, width), dtype=np.bool_)
    top, end, left, right = image.window(row, col, height, width)
    spots = np.diff(image.pixel_start).reshape(image.shape)
    out[top - row : end - row, left - col : right - col] = spots[top:end, left:right] > 0
    return out


def gather_normalized(
    image: SlideImage | PanelImage,
    row: int,
    col: int,
    height: int,
    width: int,
    genes: NDArray[np.int32],
    normalization: Normalization,
) -> NDArray[np.float32]:
    """Return a window's normalized values.

    Parameters
    ----------
    image
        The slide, or the slide reduced to these channels.
    row, col, height, width, genes
        As in `stpatch.image.slide_image.SlideImage.gather`.
    normalization
        The slide's, over all its genes.

    Returns
    -------
    numpy.ndarray
        (channels, height, width) float32; empty pixels and pads are 0. With collisions ``mean`` the mean of the spots'
        normalized values, else the normalized sum of their counts.
    """
    if isinstance(image, PanelImage):
        counts = image.gather(row, col, height, width)
    elif image.collisions == "mean" and normalization.keeps_zeros:
        return _average(image, (row, col, height, width), genes, normalization)
    else:
        counts = image.gather(row, col, height, width, genes)
    return normalize_dense(counts, image.totals(row, col, height, width), normalization.of_genes(genes))


def _average(
    image: SlideImage,
    place: tuple[int, int, int, int],
    genes: NDArray[np.int32],
    normalization: Normalization,
) -> NDArray[np.float32]:
    row, col, height, width = place
    out, planes = np.zeros((len(genes) + 1, height * width)), image.offsets(genes, 1)
    kernels.average_window(
        image.data, image.indices, image.indptr, image.spot_totals,
        image.pixel_start, image.pixel_spots, image.shape[1], image.window(*place), (row, col), width,
        float(normalization.target_sum or 1.0), kernels.METHOD_CODES[normalization.method], planes, out,
    )  # fmt: skip
    return out[: len(genes)].astype(np.float32).reshape(len(genes), height, width)
