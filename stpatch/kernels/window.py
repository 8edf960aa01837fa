"""Windows, and the arrays of a slide that the loops look them up in. Imports no compiler."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

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

    def on(self, shape: tuple[int, int]) -> GridPart:
        """Return the part that lies on a grid of (rows, columns); without any, one of no rows or no columns."""
        rows, columns = shape
        top, left = min(max(self.row, 0), rows), min(max(self.col, 0), columns)
        return GridPart(
            first_row=top,
            end_row=min(max(self.row + self.height, top), rows),
            first_col=left,
            end_col=min(max(self.col + self.width, left), columns),
        )

    def cut(self, plane: NDArray[Any], *, outside: float = 0) -> NDArray[Any]:
        """Return the window of a (rows, columns) plane, (height, width) of its dtype; `outside` fills what it lacks."""
        part = self.on((plane.shape[0], plane.shape[1]))
        out = np.full((self.height, self.width), outside, plane.dtype)
        rows = slice(part.first_row - self.row, part.end_row - self.row)
        columns = slice(part.first_col - self.col, part.end_col - self.col)
        # a window beside the grid has an empty part, whose slices may not be: they must not be negative
        if part.first_row < part.end_row and part.first_col < part.end_col:
            out[rows, columns] = plane[part.first_row : part.end_row, part.first_col : part.end_col]
        return out


class GridPart(NamedTuple):
    """The part of a window that lies on the grid: every pixel exists. Ends are exclusive."""

    first_row: int
    end_row: int
    first_col: int
    end_col: int


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
