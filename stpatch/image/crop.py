"""Patches: windows cut from a slide's grid."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from stpatch.config import CropSection
from stpatch.seeds import below, generator, raw_draws

_CLOSE = 1e-9
"""Slack of the coverage filter: 0.07 of 100 pixels is 7 of them, although 0.07 * 100 > 7 in floats."""


@dataclass(frozen=True, kw_only=True)
class Patches:
    """Windows of one slide, one per entry; all arrays (patches,).

    Attributes
    ----------
    number
        int64, the window's number inside the slide, counted before windows were left out; unique, ascending.
    row, col
        int32, the top left pixel. The window may begin before 0 or end past the grid; pixels out there are empty.
    height, width
        int32, in pixels.
    n_spots
        int32, spots inside.
    coverage
        float32, pixels with a spot as a share of height x width.
    """

    number: NDArray[np.int64]
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    height: NDArray[np.int32]
    width: NDArray[np.int32]
    n_spots: NDArray[np.int32]
    coverage: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.number)

    def take(self, index: NDArray[np.bool_] | NDArray[np.int64]) -> Patches:
        """Return the patches that a mask or positions pick."""
        return Patches(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


def cut_patches(spots_per_pixel: NDArray[np.int32], *, section: CropSection, seed: int, slide_id: str) -> Patches:
    """List the windows of a slide.

    Parameters
    ----------
    spots_per_pixel
        (rows, columns) int32.
    section
        Unit, size, method, stride or density, edge and filters.
    seed, slide_id
        The key of random windows: the k-th is the same however many there are.

    Returns
    -------
    Patches
        Ascending in number: for tiles and centered windows in reading order, for random ones in the order drawn.

    Notes
    -----
    ``unit: spot`` gives 1 x 1 on every pixel that has a spot, ``unit: slide`` the whole grid once; both without
    filters, which are meant for patches. ``unit: patch`` cuts windows of ``size`` (height, width) by ``method``:

    - ``tiles``: origins at multiples of ``stride`` until the grid is covered. ``edge: pad`` lets the last window hang
      over, ``shift`` moves it back inside, ``drop`` leaves it out.
    - ``random``: ``ceil(density * rows * columns / (height * width))`` windows, origins uniform over all windows inside
      the grid, the last row and column among them.
    - ``centered``: a window around every pixel that has a spot, which is its pixel ``(height // 2, width // 2)``;
      ``edge`` as for tiles.

    Along an axis on which the grid is smaller than the window, ``drop`` leaves every window out; ``pad`` and ``shift``
    keep it, padded behind the grid (for ``centered`` with ``pad``: on whichever sides it hangs over).

    Of the same window twice the first stays. A window without a spot is never kept; the others need both
    ``min_coverage`` and ``min_spots`` (set ``min_coverage: 0`` to filter by spots alone).
    """
    grid_shape = (int(spots_per_pixel.shape[0]), int(spots_per_pixel.shape[1]))
    if section.unit == "slide":
        return _measured(spots_per_pixel, np.zeros((2, 1), dtype=np.int64), np.zeros(1, dtype=np.int64), grid_shape)
    if section.unit == "spot":
        pixels = np.stack(np.nonzero(spots_per_pixel)).astype(np.int64)
        return _measured(spots_per_pixel, pixels, np.arange(pixels.shape[1], dtype=np.int64), (1, 1))
    size = section.size
    if section.edge == "drop" and (grid_shape[0] < size[0] or grid_shape[1] < size[1]):
        origins = np.zeros((2, 0), dtype=np.int64)
    elif section.method == "tiles":
        origins = _tiles(grid_shape, section)
    elif section.method == "random":
        origins = _random(grid_shape, section, seed, slide_id)
    else:
        origins = np.stack(np.nonzero(spots_per_pixel)) - np.array([[size[0] // 2], [size[1] // 2]])
    number = np.arange(origins.shape[1], dtype=np.int64)
    last = np.array([[max(grid_shape[0] - size[0], 0)], [max(grid_shape[1] - size[1], 0)]])
    if section.edge == "shift":
        origins = np.clip(origins, 0, last)
    elif section.edge == "drop":
        inside = ((origins >= 0) & (origins <= last)).all(axis=0)
        origins, number = origins[:, inside], number[inside]
    if section.edge == "shift" or section.method == "random":
        _, first = np.unique(origins[0] * (grid_shape[1] + 1) + origins[1], return_index=True)
        first.sort()
        origins, number = origins[:, first], number[first]
    patches = _measured(spots_per_pixel, origins, number, size)
    n_pixels = np.float64(size[0] * size[1])
    occupied = np.rint(patches.coverage.astype(np.float64) * n_pixels)
    kept = (patches.n_spots > 0) & (occupied >= section.min_coverage * n_pixels - _CLOSE)
    return patches.take(kept & (patches.n_spots >= (section.min_spots or 0)))


def _tiles(grid_shape: tuple[int, int], section: CropSection) -> NDArray[np.int64]:
    rows, cols = (
        np.arange(min(1 + _ceil_div(max(n - size, 0), stride), _ceil_div(n, stride)), dtype=np.int64) * stride
        for n, size, stride in zip(grid_shape, section.size, section.strides, strict=True)
    )
    return np.stack([np.repeat(rows, len(cols)), np.tile(cols, len(rows))])


def _random(grid_shape: tuple[int, int], section: CropSection, seed: int, slide_id: str) -> NDArray[np.int64]:
    (rows, cols), (height, width) = grid_shape, section.size
    n = math.ceil(section.density * rows * cols / (height * width))
    # Two draws per window from one counter: window k has draws 2k and 2k + 1 whatever n is.
    draws = raw_draws(generator(seed, slide_id, "crop"), 2 * n)
    return np.stack([below(draws[0::2], max(rows - height, 0) + 1), below(draws[1::2], max(cols - width, 0) + 1)])


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _measured(
    spots_per_pixel: NDArray[np.int32], origins: NDArray[np.int64], number: NDArray[np.int64], size: tuple[int, int]
) -> Patches:
    """Count the spots and the occupied pixels of windows."""
    n = len(number)
    n_spots = window_sums(spots_per_pixel, origins[0], origins[1], size)
    occupied = window_sums(spots_per_pixel > 0, origins[0], origins[1], size)
    return Patches(
        number=number,
        row=origins[0].astype(np.int32),
        col=origins[1].astype(np.int32),
        height=np.full(n, size[0], dtype=np.int32),
        width=np.full(n, size[1], dtype=np.int32),
        n_spots=n_spots.astype(np.int32),
        coverage=(occupied / (size[0] * size[1])).astype(np.float32),
    )


def window_sums(
    values: NDArray[np.int32] | NDArray[np.bool_],
    row: NDArray[np.int64],
    col: NDArray[np.int64],
    size: tuple[int, int],
) -> NDArray[np.int64]:
    """Sum whole numbers over windows by a summed-area table; what is outside the grid is 0.

    Parameters
    ----------
    values
        (rows, columns), not negative.
    row, col
        (windows,) the top left pixels.
    size
        (height, width) of all windows.
    """
    n_rows, n_cols = values.shape
    # Half the memory where the sum allows it: the largest grids have hundreds of millions of pixels.
    dtype = np.int32 if values.sum(dtype=np.int64) < 2**31 else np.int64
    table = np.zeros((n_rows + 1, n_cols + 1), dtype=dtype)
    np.cumsum(values, axis=0, out=table[1:, 1:])
    np.cumsum(table[1:, 1:], axis=1, out=table[1:, 1:])
    top, bottom = np.clip(row, 0, n_rows), np.clip(row + size[0], 0, n_rows)
    left, right = np.clip(col, 0, n_cols), np.clip(col + size[1], 0, n_cols)
    sums = table[bottom, right].astype(np.int64)
    sums -= table[top, right]
    sums -= table[bottom, left]
    sums += table[top, left]
    return sums
