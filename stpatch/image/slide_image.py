"""A slide as an image: its windows' counts, normalized values and moments.

A window may pass the grid's edges; what lies outside is empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import InputError
from stpatch.image.moments import Moments, WindowMoments, dense_moments
from stpatch.image.values import PatchNormalizer, Recipe, Residuals
from stpatch.kernels import gather as kernels
from stpatch.kernels.formula import NONE, Formula
from stpatch.kernels.window import GeneNumbers, SlideArrays, Window
from stpatch.kernels.window_sums import average_window

GENES_AT_ONCE = 1024
"""Genes in a dense block, where a normalization has no sparse values."""
_LARGEST_UINT16, _LARGEST_INT32 = 2**16 - 1, 2**31 - 1
_AS_THEY_ARE = Formula(method=NONE)


@dataclass(frozen=True, kw_only=True, eq=False)
class SlideImage:
    """A slide as an image whose pixels are found by place.

    Attributes
    ----------
    arrays
        The slide's counts, (spots, genes), and the spots of each pixel: checked, so that loops may trust them. Counts
        are often memory-mapped, never copied.
    n_genes
        Number of the slide's measured genes.
    shape
        (rows, columns) of the grid.
    collisions
        ``sum``: a pixel of several spots holds the sum of their counts and totals. ``mean``: the mean of their
        normalized values and of their totals. ``first``: the grid has dropped the later spots.
    pixel_totals
        (rows, columns) float64, a pixel's count over all measured genes; 0 where it is empty.
    count_dtype
        The dtype that holds every pixel's count of every measured gene: uint16 or uint32; float32 for normalized input.
    recipe
        How counts become values.
    """

    arrays: SlideArrays
    n_genes: int
    shape: tuple[int, int]
    collisions: str
    pixel_totals: NDArray[np.float64]
    count_dtype: np.dtype[Any]
    recipe: Recipe

    @classmethod
    def of(
        cls,
        counts: tuple[NDArray[Any], GeneNumbers, NDArray[np.int64]],
        *,
        n_genes: int,
        totals: NDArray[np.float64],
        grid_pixel: NDArray[np.int64],
        grid_shape: tuple[int, int],
        collisions: str,
        recipe: Recipe = _AS_THEY_ARE,
    ) -> SlideImage:
        """Index a slide's spots by pixel.

        Parameters
        ----------
        counts
            CSR arrays data, indices and indptr, (spots, genes), rows with sorted genes.
        n_genes
            Number of measured genes.
        totals
            (spots,) counts over all measured genes.
        grid_pixel
            (spots,) flat pixel of each spot, -1 where the grid dropped it.
        grid_shape
            (rows, columns).
        collisions
            ``sum``, ``mean`` or ``first``.
        recipe
            How counts become values; as it comes from the slide's normalization.

        Raises
        ------
        InputError
            The arrays do not belong together, or a row names a gene that the slide does not have.
        ValueError
            Input that is normalized already is to be normalized again.
        """
        data, indices, indptr = counts
        if data.dtype.kind == "f" and not (isinstance(recipe, Formula) and recipe.method == NONE):
            raise ValueError(f"values that are normalized already cannot be normalized again, by {recipe}")
        n_spots = len(indptr) - 1
        n_pixels = int(grid_shape[0]) * int(grid_shape[1])
        lengths = {"totals": len(totals), "grid": len(grid_pixel)}
        if any(length != n_spots for length in lengths.values()) or len(data) != len(indices):
            raise InputError(
                "a slide's counts, totals and grid have different lengths",
                found=f"{n_spots} rows, {lengths}, {len(data)} values, {len(indices)} indices",
                expected="one total and one pixel per row, one value per index",
            )
        if n_spots and (indptr[0] != 0 or indptr[-1] != len(data) or np.any(np.diff(indptr) < 0)):
            raise InputError("a slide's row pointers do not fit its values", found=f"{indptr[0]} to {indptr[-1]}")
        if n_spots and (grid_pixel.max() >= n_pixels or grid_pixel.min() < -1):
            raise InputError(
                "a slide's spots lie outside its grid",
                found=f"pixels {grid_pixel.min()} to {grid_pixel.max()}",
                expected=f"-1 to {n_pixels - 1}",
            )
        bad = kernels.sound_rows(indices, indptr, n_genes)
        if bad >= 0:
            raise InputError(
                "a slide's counts name genes that it does not have",
                where=f"row {bad}",
                found=f"genes up to {indices[indptr[bad] : indptr[bad + 1]].max(initial=0)}",
                expected=f"0 to {n_genes - 1}",
                hint="delete the slide's file in the work dir and build again",
            )
        placed = np.flatnonzero(grid_pixel >= 0)
        pixel_spots = placed[np.argsort(grid_pixel[placed], kind="stable")]
        pixel_start = np.zeros(n_pixels + 1, dtype=np.int64)
        np.cumsum(np.bincount(grid_pixel[placed], minlength=n_pixels), out=pixel_start[1:])
        spots_per_pixel = np.diff(pixel_start)
        weights = np.asarray(totals, dtype=np.float64)[pixel_spots]
        pixel_of = np.repeat(np.arange(n_pixels), spots_per_pixel)
        pixel_totals = np.bincount(pixel_of, weights=weights, minlength=n_pixels).astype(np.float64)
        count_dtype = np.dtype(np.float32 if data.dtype.kind == "f" else np.uint16)
        if count_dtype == np.uint16:
            crowded = np.flatnonzero((spots_per_pixel > 1) & (pixel_totals > _LARGEST_UINT16))
            rows = (pixel_spots[pixel_start[pixel] : pixel_start[pixel + 1]] for pixel in crowded)
            wide = data.dtype.itemsize > 2
            if wide or any(_largest_sum(data, indices, indptr, spots) > _LARGEST_UINT16 for spots in rows):
                count_dtype = np.dtype(np.uint32)
        if collisions == "mean":
            pixel_totals /= np.maximum(spots_per_pixel, 1)
        return cls(
            arrays=SlideArrays(
                data=data,
                indices=indices,
                indptr=np.asarray(indptr, dtype=np.int64),
                spot_totals=np.array(totals, dtype=np.float64),
                pixel_start=pixel_start,
                pixel_spots=pixel_spots,
                columns=int(grid_shape[1]),
            ),
            n_genes=n_genes,
            shape=(int(grid_shape[0]), int(grid_shape[1])),
            collisions=collisions,
            pixel_totals=pixel_totals.reshape(grid_shape),
            count_dtype=count_dtype,
            recipe=recipe,
        )

    def counts(self, window: Window, genes: NDArray[np.int32], *, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return a window's counts.

        Parameters
        ----------
        window
            The window.
        genes
            (channels,) int32, the slide's gene of each channel, -1 for none; no gene twice.
        out
            (channels + 1, height, width), C order, of `count_dtype` or wider: overwritten, its last plane by scratch.

        Returns
        -------
        numpy.ndarray
            (channels, height, width) of `count_dtype`, the planes of `out` if it was given; empty pixels are 0. With
            collisions ``mean`` ask for `values`, as counts have no mean.
        """
        n_channels = len(genes)
        shape = (n_channels + 1, window.height, window.width)
        if out is None:
            out = np.empty(shape, self.count_dtype)
        elif out.shape != shape or not np.can_cast(self.count_dtype, out.dtype):
            raise ValueError(f"out is {out.dtype} {out.shape}, needs {self.count_dtype} {shape}")
        out[:n_channels] = 0
        offsets = self.offsets(genes, window.height * window.width)
        kernels.gather_window(self.arrays, window, offsets, out.reshape(-1))
        return out[:n_channels]

    def values(self, window: Window, genes: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return a window's normalized values.

        Returns
        -------
        numpy.ndarray
            (channels, height, width) float32; empty pixels and pads are 0. With collisions ``mean`` the mean of the
            spots' normalized values, else the normalized sum of their counts.
        """
        if self.collisions == "mean" and isinstance(self.recipe, Formula):
            return self._mean_values(window, genes, self.recipe)
        return self.values_of(self.counts(window, genes), window, genes)

    def values_of(self, counts: NDArray[Any], window: Window, genes: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the normalized values of a window's counts, which the caller has already."""
        recipe = self.recipe.of_genes(genes) if isinstance(self.recipe, Residuals) else self.recipe
        out = np.empty(counts.shape, dtype=np.float32)
        self._normalizer.write(np.ascontiguousarray(counts), self.totals(window), recipe, out=out)
        return out

    @cached_property
    def _normalizer(self) -> PatchNormalizer:
        return PatchNormalizer()

    def moments(self, window: Window) -> Moments:
        """Return the moments of a window's normalized values, all genes; the next call overwrites them.

        A window without spots has zeros.
        """
        if isinstance(self.recipe, Residuals):
            return self._dense_moments(window)
        return self._window_moments.measure(window)

    def totals(self, window: Window) -> NDArray[np.float32]:
        """Return a window's (height, width) float32 counts over all genes; 0 marks an empty pixel."""
        return window.cut(self.pixel_totals, dtype=np.float32)

    def occupied(self, window: Window) -> NDArray[np.bool_]:
        """Return (height, width) bool: where the window has a spot."""
        return window.cut(self._occupied)

    def offsets(self, genes: NDArray[np.int32], step: int) -> NDArray[Any]:
        """Return (genes,) `step` times each of the slide's genes' channel; the number of channels, for one without.

        Raises
        ------
        ValueError
            A channel's gene is not one of the slide's.
        """
        end = len(genes) * step
        offsets = np.empty(self.n_genes, np.int32 if end <= _LARGEST_INT32 else np.int64)
        if genes.ndim != 1 or not kernels.place_channels(genes, step, offsets):
            raise ValueError(f"a channel's gene is not one of the slide's {self.n_genes}")
        return offsets

    @property
    def counts_nbytes(self) -> int:
        """Bytes of the counts: values, gene numbers and row pointers, mapped or not."""
        return self.arrays.data.nbytes + self.arrays.indices.nbytes + self.arrays.indptr.nbytes

    @property
    def nbytes(self) -> int:
        """Bytes held in memory, the counts aside: the grid, and the buffers of moments once there are any."""
        buffers = self._window_moments.nbytes if "_window_moments" in vars(self) else 0
        return self.arrays.pixel_start.nbytes * 3 + buffers

    @cached_property
    def _occupied(self) -> NDArray[np.bool_]:
        return (np.diff(self.arrays.pixel_start) > 0).reshape(self.shape)

    @cached_property
    def _window_moments(self) -> WindowMoments:
        assert isinstance(self.recipe, Formula)  # noqa: S101 - for the type checker; `moments` has made sure
        averaged = self.collisions == "mean"
        return WindowMoments(self.arrays, n_genes=self.n_genes, formula=self.recipe, averaged=averaged)

    def _dense_moments(self, window: Window) -> Moments:
        mean, variance = np.zeros(self.n_genes), np.zeros(self.n_genes)
        occupied = np.flatnonzero(self.occupied(window))
        for start in range(0, self.n_genes if len(occupied) else 0, GENES_AT_ONCE):
            genes = np.arange(start, min(start + GENES_AT_ONCE, self.n_genes), dtype=np.int32)
            mean[genes], variance[genes] = dense_moments(self.values(window, genes), occupied)
        return Moments(n_pixels=len(occupied), mean=mean, variance=variance)

    def _mean_values(self, window: Window, genes: NDArray[np.int32], formula: Formula) -> NDArray[np.float32]:
        out, planes = np.zeros((len(genes) + 1, window.height * window.width)), self.offsets(genes, 1)
        average_window(self.arrays, window, formula, planes, out)
        return out[: len(genes)].astype(np.float32).reshape(len(genes), window.height, window.width)


def _largest_sum(data: NDArray[Any], indices: GeneNumbers, indptr: NDArray[np.int64], spots: NDArray[np.int64]) -> int:
    """Return the largest count of a gene, summed over some spots."""
    parts = [slice(int(indptr[spot]), int(indptr[spot + 1])) for spot in spots]
    genes = np.concatenate([indices[part] for part in parts])
    counts = np.concatenate([data[part] for part in parts])
    return int(np.bincount(genes, weights=counts).max(initial=0))
