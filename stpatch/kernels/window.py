"""Windows, and the arrays of a slide that the loops look them up in. Imports no compiler."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

GeneNumbers = NDArray[np.uint16] | NDArray[np.int32]


class Window(NamedTuple):
    """A rectangle of pixels; it may begin before the grid or end past it.

    Attributes
    ----------
    row, col
        The top left pixel.
    height, width
        In pixels.
    """

    row: int
    col: int
    height: int
    width: int

    def cut(self, plane: NDArray[Any], *, outside: float = 0, dtype: DTypeLike | None = None) -> NDArray[Any]:
        """Return a copy of the window of a plane.

        Parameters
        ----------
        plane
            (rows, columns).
        outside
            What pixels hold that the plane does not have.
        dtype
            Of the copy; None: the plane's.

        Returns
        -------
        numpy.ndarray
            (height, width).
        """
        row, col, height, width = self
        dtype = plane.dtype if dtype is None else dtype
        if row >= 0 and col >= 0 and row + height <= plane.shape[0] and col + width <= plane.shape[1]:
            return plane[row : row + height, col : col + width].astype(dtype)
        out = np.full((height, width), outside, dtype)
        top, left = max(row, 0), max(col, 0)
        part = plane[top : max(row + height, top), left : max(col + width, left)]
        if part.size:  # a window beside the plane has no part, and no place for it
            out[top - row : top - row + part.shape[0], left - col : left - col + part.shape[1]] = part
        return out


class SlideArrays(NamedTuple):
    """A slide's counts and grid, as every loop takes them.

    ::

        pixel p  ->  pixel_start[p] .. pixel_start[p + 1]  ->  pixel_spots: the spots of p
        spot s   ->  indptr[s] .. indptr[s + 1]            ->  indices: its genes, data: their counts

    Attributes
    ----------
    data, indices, indptr
        CSR counts, (spots, genes), rows with sorted genes, none twice; often memory-mapped and read-only.
    spot_totals
        (spots,) float64, counts over all measured genes.
    pixel_start, pixel_spots
        (pixels + 1,) and (placed spots,) int64, pixels by row * columns + column.
    columns
        Of the grid.
    """

    data: NDArray[Any]
    indices: GeneNumbers
    indptr: NDArray[np.int64]
    spot_totals: NDArray[np.float64]
    pixel_start: NDArray[np.int64]
    pixel_spots: NDArray[np.int64]
    columns: int
