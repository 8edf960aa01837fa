"""A slide's counts and grid, ready for window look-ups.

A window is (row, col, height, width) in pixels; it may pass the grid's edges, and what lies outside is empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import InputError

GeneNumbers = NDArray[np.uint16] | NDArray[np.int32]
_LARGEST_UINT16, _LARGEST_INT32 = 2**16 - 1, 2**31 - 1


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
    n_genes
        Number of the slide's measured genes.
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
    """

    data: NDArray[Any]
    indices: GeneNumbers
    indptr: NDArray[np.int64]
    n_genes: int
    spot_totals: NDArray[np.float64]
    pixel_start: NDArray[np.int64]
    pixel_spots: NDArray[np.int64]
    shape: tuple[int, int]
    collisions: str
    pixel_totals: NDArray[np.float64]
    count_dtype: np.dtype[Any]

    @classmethod
    def of(
        cls,
        *,
        data: NDArray[Any],
        indices: GeneNumbers,
        indptr: NDArray[np.int64],
        n_genes: int,
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

        Raises
        ------
        InputError
            The arrays do not belong together, or a row names a gene that the slide has not.
        """
        from stpatch.kernels import gather as kernels

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
        bad = kernels.sound_rows(indices, indptr, n_genes)
        if bad >= 0:
            raise InputError(
                "a slide's counts name genes that it has not",
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
            data=data,
            indices=indices,
            indptr=np.asarray(indptr, dtype=np.int64),
            n_genes=n_genes,
            spot_totals=np.array(totals, dtype=np.float64),
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

    def gather(
        self,
        row: int,
        col: int,
        height: int,
        width: int,
        genes: NDArray[np.int32],
        *,
        room: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Return a window's counts.

        Parameters
        ----------
        row, col, height, width
            The window, in pixels.
        genes
            (channels,) int32, the slide's gene of each channel, -1 for none; no gene twice.
        room
            (channels + 1, height, width), C order, of `count_dtype` or wider: overwritten, its last plane by scratch.

        Returns
        -------
        numpy.ndarray
            (channels, height, width) of `count_dtype`, the planes of `room` if it was given; empty pixels are 0. With
            collisions ``mean`` use `stpatch.expression.window.gather_normalized`, as counts have no mean.
        """
        from stpatch.kernels import gather as kernels

        n_channels = len(genes)
        shape = (n_channels + 1, height, width)
        if room is None:
            room = np.empty(shape, self.count_dtype)
        elif room.shape != shape or not np.can_cast(self.count_dtype, room.dtype):
            raise ValueError(f"room is {room.dtype} {room.shape}, needs {self.count_dtype} {shape}")
        room[:n_channels] = 0
        offsets = self.offsets(genes, height * width)
        window = self.window(row, col, height, width)
        kernels.gather_window(
            self.data, self.indices, self.indptr, self.pixel_start, self.pixel_spots, self.shape[1],
            window, (row, col), width, offsets, room.reshape(-1),
        )  # fmt: skip
        return room[:n_channels]

    def offsets(self, genes: NDArray[np.int32], step: int) -> NDArray[Any]:
        """Return (genes,) `step` times each of the slide's genes' channel; the number of channels, for one without.

        Raises
        ------
        ValueError
            A channel's gene is none of the slide's.
        """
        from stpatch.kernels import gather as kernels

        end = len(genes) * step
        offsets = np.empty(self.n_genes, np.int32 if end <= _LARGEST_INT32 else np.int64)
        if genes.ndim != 1 or not kernels.place_channels(genes, step, offsets):
            raise ValueError(f"a channel's gene is none of the slide's {self.n_genes}")
        return offsets

    def totals(self, row: int, col: int, height: int, width: int) -> NDArray[np.float32]:
        """Return a window's (height, width) float32 counts over all genes; 0 marks an empty pixel."""
        out = np.zeros((height, width), dtype=np.float32)
        top, end, left, right = self.window(row, col, height, width)
        out[top - row : end - row, left - col : right - col] = self.pixel_totals[top:end, left:right]
        return out

    @property
    def nbytes(self) -> int:
        """Bytes of the counts: values, gene numbers and row pointers, mapped or not."""
        return self.data.nbytes + self.indices.nbytes + self.indptr.nbytes


def _largest_sum(data: NDArray[Any], indices: GeneNumbers, indptr: NDArray[np.int64], spots: NDArray[np.int64]) -> int:
    """Return the largest count of a gene, summed over some spots."""
    parts = [slice(int(indptr[spot]), int(indptr[spot + 1])) for spot in spots]
    genes = np.concatenate([indices[part] for part in parts])
    counts = np.concatenate([data[part] for part in parts])
    return int(np.bincount(genes, weights=counts).max(initial=0))
