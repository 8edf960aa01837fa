"""A slide's counts and grid, ready for window look-ups.

A window is (row, col, height, width) in pixels; it may pass the grid's edges, and what lies outside is empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import InputError

_LARGEST_UINT16 = 2**16 - 1


class Window(NamedTuple):
    """The part of a window that lies on the grid: rows and columns, ends exclusive."""

    row: int
    end_row: int
    col: int
    end_col: int


@dataclass(frozen=True, kw_only=True, eq=False)
class SlideImage:
    """A slide as an image whose pixels are found by place.

    Attributes
    ----------
    data, indices, indptr
        The slide's CSR counts, (spots, genes), rows with sorted genes; often memory-mapped, never copied.
        With `panel_channels` the indices are channels already.
    spot_totals
        (spots,) float64, counts over all measured genes.
    pixel_start, pixel_spots
        The spots of pixel p (row * columns + col) are ``pixel_spots[pixel_start[p]:pixel_start[p + 1]]``.
    shape
        (rows, columns) of the grid.
    collisions
        ``sum``: a pixel of several spots holds the sum of their counts and totals. ``mean``: the mean of their
        normalized values and of their totals. ``first``: the grid has dropped the later spots.
    pixel_totals
        (rows, columns) float64, a pixel's count over all measured genes; 0 where it is empty.
    count_dtype
        The dtype that holds every pixel's count of every measured gene: uint16 or uint32; float32 for normalized input.
    panel_channels
        Number of channels where `indices` are channels, else None.
    """

    data: NDArray[Any]
    indices: NDArray[np.int32]
    indptr: NDArray[np.int64]
    spot_totals: NDArray[np.float64]
    pixel_start: NDArray[np.int64]
    pixel_spots: NDArray[np.int64]
    shape: tuple[int, int]
    collisions: str
    pixel_totals: NDArray[np.float64]
    count_dtype: np.dtype[Any]
    panel_channels: int | None = None
    _scratch: dict[str, NDArray[Any]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        *,
        data: NDArray[Any],
        indices: NDArray[np.int32],
        indptr: NDArray[np.int64],
        totals: NDArray[np.float64],
        grid_pixel: NDArray[np.int64],
        grid_shape: tuple[int, int],
        collisions: str,
    ) -> SlideImage:
        """Index a slide's spots by pixel.

        Parameters
        ----------
        data, indices, indptr
            CSR counts, (spots, genes), rows with sorted genes.
        totals
            (spots,) counts over all measured genes.
        grid_pixel
            (spots,) flat pixel of each spot, -1 where the grid dropped it.
        grid_shape
            (rows, columns).
        collisions
            ``sum``, ``mean`` or ``first``.

        Raises
        ------
        InputError
            The arrays do not belong together.
        """
        n_spots = len(indptr) - 1
        n_pixels = int(grid_shape[0]) * int(grid_shape[1])
        lengths = {"totals": len(totals), "grid": len(grid_pixel)}
        if any(length != n_spots for length in lengths.values()) or len(data) != len(indices):
            raise InputError(
                "a slide's counts, totals and grid have different lengths",
                found=f"{n_spots} rows, {lengths}, {len(data)} values, {len(indices)} indices",
                expected="one total and one pixel a row, one value an index",
            )
        if n_spots and (indptr[0] != 0 or indptr[-1] != len(data) or np.any(np.diff(indptr) < 0)):
            raise InputError("a slide's row pointers do not fit its values", found=f"{indptr[0]} to {indptr[-1]}")
        if n_spots and (grid_pixel.max() >= n_pixels or grid_pixel.min() < -1):
            raise InputError(
                "a slide's spots lie outside its grid",
                found=f"pixels {grid_pixel.min()} to {grid_pixel.max()}",
                expected=f"-1 to {n_pixels - 1}",
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
            data=data,
            indices=indices,
            indptr=np.asarray(indptr, dtype=np.int64),
            spot_totals=np.asarray(totals, dtype=np.float64),
            pixel_start=pixel_start,
            pixel_spots=pixel_spots,
            shape=(int(grid_shape[0]), int(grid_shape[1])),
            collisions=collisions,
            pixel_totals=pixel_totals.reshape(grid_shape),
            count_dtype=count_dtype,
        )

    def window(self, row: int, col: int, height: int, width: int) -> Window:
        """Return the part of a window that lies on the grid."""
        rows, columns = self.shape
        top, left = min(max(row, 0), rows), min(max(col, 0), columns)
        return Window(top, min(max(row + height, top), rows), left, min(max(col + width, left), columns))

    def with_panel(self, channel_of_gene: NDArray[np.int32], n_channels: int) -> SlideImage:
        """Return the image reduced to the genes of a panel, whose windows then touch nothing else.

        Parameters
        ----------
        channel_of_gene
            (genes,) int32, the channel of each of the slide's genes, -1 for none.
        n_channels
            Number of channels.
        """
        from stpatch.image import gather as kernels

        self._check_channels(channel_of_gene, n_channels)
        n_entries = len(self.data) + 1  # of room, not of memory: pages that are never written are never taken
        data = np.empty(n_entries, dtype=self.data.dtype)
        channels = np.empty(n_entries, dtype=np.int32)
        indptr = np.empty_like(self.indptr)
        found = kernels.reduce_to_chosen(self.data, self.indices, self.indptr, channel_of_gene, data, channels, indptr)
        return replace(
            self,
            data=data[:found],
            indices=channels[:found],
            indptr=indptr,
            panel_channels=n_channels,
            _scratch={},
        )

    def gather(
        self,
        row: int,
        col: int,
        height: int,
        width: int,
        channel_of_gene: NDArray[np.int32] | None = None,
        n_channels: int | None = None,
        *,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Return a window's counts.

        Parameters
        ----------
        row, col, height, width
            The window, in pixels.
        channel_of_gene
            (genes,) int32, the channel of each of the slide's genes, -1 for none; left out for an image `with_panel`.
        n_channels
            Number of channels; left out for an image `with_panel`.
        out
            (channels, height, width), C order, of `count_dtype` or wider: overwritten and returned.

        Returns
        -------
        numpy.ndarray
            (channels, height, width) of `count_dtype`; empty pixels are 0. With collisions ``mean`` use
            `stpatch.expression.window.gather_normalized`, as counts have no mean.
        """
        from stpatch.image import gather as kernels

        channels = n_channels if self.panel_channels is None else self.panel_channels
        if channels is None or (channel_of_gene is None) != (self.panel_channels is not None):
            raise ValueError("give channel_of_gene and n_channels, or neither for an image with a panel")
        if out is None:
            out = np.zeros((channels, height, width), dtype=self.count_dtype)
        elif out.shape != (channels, height, width) or not np.can_cast(self.count_dtype, out.dtype):
            raise ValueError(f"out is {out.dtype} {out.shape}, needs {self.count_dtype} {(channels, height, width)}")
        else:
            out[...] = 0
        window = self.window(row, col, height, width)
        flat = out.reshape(channels, height * width)
        place = (self.pixel_start, self.pixel_spots, self.shape[1], window, (row, col), width)
        if channel_of_gene is None:
            kernels.gather_panel_window(self.data, self.indices, self.indptr, *place, flat)
            return out
        self._check_channels(channel_of_gene, channels)
        chosen = (channel_of_gene >= 0).view(np.uint8)
        hits = self._buffer("hits", len(channel_of_gene) + 4)
        kernels.gather_window(self.data, self.indices, self.indptr, *place, chosen, channel_of_gene, hits, flat)
        return out

    def totals(self, row: int, col: int, height: int, width: int) -> NDArray[np.float32]:
        """Return a window's (height, width) float32 counts over all genes; 0 marks an empty pixel."""
        out = np.zeros((height, width), dtype=np.float32)
        top, end, left, right = self.window(row, col, height, width)
        out[top - row : end - row, left - col : right - col] = self.pixel_totals[top:end, left:right]
        return out

    def _buffer(self, name: str, size: int) -> NDArray[np.uint32]:
        buffer = self._scratch.get(name)
        if buffer is None or len(buffer) < size:
            buffer = self._scratch[name] = np.zeros(size, dtype=np.uint32)
        return buffer

    def _check_channels(self, channel_of_gene: NDArray[np.int32], n_channels: int) -> None:
        n_genes = len(channel_of_gene)
        if self.panel_channels is not None:
            raise ValueError("the image has a panel already")
        if channel_of_gene.dtype != np.int32 or (n_genes and channel_of_gene.max() >= n_channels):
            raise ValueError(f"channel_of_gene must be int32 and below {n_channels}")
        self.check_genes(n_genes)

    def check_genes(self, n_genes: int) -> None:
        """Raise `InputError` if a row of the counts names a gene beyond the slide's `n_genes`; once a slide."""
        from stpatch.image import gather as kernels

        if self._scratch.get("genes") is not None and len(self._scratch["genes"]) == n_genes:
            return
        bad = kernels.sound_rows(self.indices, self.indptr, n_genes)
        if bad >= 0:
            raise InputError(
                "a slide's counts name genes that it has not",
                where=f"row {bad}",
                found=f"genes {self.indices[self.indptr[bad] : self.indptr[bad + 1]].max(initial=-1)}",
                expected=f"0 to {n_genes - 1}",
                mend="delete the slide's file in the work dir and build again",
            )
        self._scratch["genes"] = np.empty(n_genes, dtype=np.int8)


def _largest_sum(
    data: NDArray[Any], indices: NDArray[np.int32], indptr: NDArray[np.int64], spots: NDArray[np.int64]
) -> int:
    """Return the largest count of a gene, summed over some spots."""
    parts = [slice(int(indptr[spot]), int(indptr[spot + 1])) for spot in spots]
    genes = np.concatenate([indices[part] for part in parts])
    counts = np.concatenate([data[part] for part in parts])
    return int(np.bincount(genes, weights=counts).max(initial=0))
