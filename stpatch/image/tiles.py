"""Tiles: small squares of pixels whose spots lie together, so that a window touches few places of a file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TILE = 16
"""Side of a tile in pixels: a window of the usual sizes touches one to nine."""


def tile_order(pixel: NDArray[np.int64], columns: int, *, side: int = TILE) -> NDArray[np.int64]:
    """Return the order of spots by tile, and by pixel inside a tile, both in reading order.

    Spots of one pixel keep their order; those without a pixel come last.

    Parameters
    ----------
    pixel
        (spots,) int64 flat pixel of each spot, -1 for none.
    columns
        Of the grid.
    side
        Of a tile, in pixels.
    """
    row, col = np.divmod(np.maximum(pixel, 0), columns)
    none = pixel < 0
    return np.lexsort((col, row, col // side, row // side, none)).astype(np.int64)


def coarsened(
    pixel: NDArray[np.int64], shape: tuple[int, int], factor: int
) -> tuple[NDArray[np.int64], tuple[int, int]]:
    """Return each spot's flat pixel on a grid whose pixels are `factor` x `factor` of the old ones, and its shape.

    The coarse pixel (0, 0) begins where the old one does; at the far edges a coarse pixel may hang over.
    """
    rows, columns = -(-shape[0] // factor), -(-shape[1] // factor)
    row, col = np.divmod(np.maximum(pixel, 0), shape[1])
    coarse = (row // factor) * columns + col // factor
    return np.where(pixel < 0, np.int64(-1), coarse), (rows, columns)
