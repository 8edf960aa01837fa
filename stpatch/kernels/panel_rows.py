"""Loops over a slide's dense rows of a panel: a window is the transposition of its pixels' rows.

::

    rows:  pixel a  [c0 c1 c2 ...]          out:  channel 0  [a b ...]
           pixel b  [c0 c1 c2 ...]   --->         channel 1  [a b ...]
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stpatch.kernels.gather import add_row, example_slide, place_row, sample_dtype
from stpatch.kernels.registry import kernel
from stpatch.kernels.window import GridPart, SlideArrays, Window

LINE = 64
"""Bytes of a cache line."""


class PanelRows(NamedTuple):
    """A slide's counts of a panel.

    Attributes
    ----------
    columns
        (genes,) a gene's column in `rows`, the first one to spare for a gene that the panel has not.
    row_of_pixel
        (pixels,) int64, the last row for an empty pixel.
    filled
        (rows,) bool, whether a window has touched the row's pixel.
    rows
        (occupied pixels + 1, channels and at least one to spare), zeros where not filled.
    """

    columns: NDArray[Any]
    row_of_pixel: NDArray[np.int64]
    filled: NDArray[np.bool_]
    rows: NDArray[Any]


@kernel()
def fill_panel_rows(slide: SlideArrays, part: GridPart, panel: PanelRows) -> None:
    """Fill the rows of a window's pixels that no window has touched yet."""
    data, indices, indptr = slide.data, slide.indices, slide.indptr
    pixel_start, pixel_spots = slide.pixel_start, slide.pixel_spots
    columns, filled, row_of_pixel = panel.columns, panel.filled, panel.row_of_pixel
    out, stride = panel.rows.reshape(-1), panel.rows.shape[1]
    for grid_row in range(part.first_row, part.end_row):
        row_start = grid_row * slide.columns
        for pixel in range(row_start + part.first_col, row_start + part.end_col):
            row = row_of_pixel[pixel]
            if filled[row]:
                continue
            filled[row] = True
            place, first, end = np.uintp(row * stride), pixel_start[pixel], pixel_start[pixel + 1]
            if end - first == 1:
                spot = pixel_spots[first]
                place_row(data, indices, indptr[spot], indptr[spot + 1], columns, place, out)
                continue
            for k in range(first, end):
                spot = pixel_spots[k]
                add_row(data, indices, indptr[spot], indptr[spot + 1], columns, place, out)


@kernel()
def fetch_rows(rows: NDArray[Any], row_of_place: NDArray[np.int64], n_channels: int) -> Any:
    """Read one item of each cache line of the places' rows, one row after the other; return their sum.

    So the processor sees what comes next and fetches it; of eight rows that are read side by side it does not.
    """
    step, found = np.uintp(LINE // rows.itemsize), rows.dtype.type(0)
    for place in range(len(row_of_place)):
        row, channel = rows[np.uintp(row_of_place[place])], np.uintp(0)
        while channel < np.uintp(n_channels):
            found += row[channel]
            channel += step
    return found


@kernel()
def transpose_rows(rows: NDArray[Any], row_of_place: NDArray[np.int64], out: NDArray[Any]) -> None:
    """Write `out` (channels, places): each place's row of `rows`.

    Eight places at a time, so that each store to a channel's plane finds its cache line where the one before left it.
    """
    n_channels, n_places, eight, one = np.uintp(out.shape[0]), np.uintp(out.shape[1]), np.uintp(8), np.uintp(1)
    place = np.uintp(0)
    while place + eight <= n_places:
        a, b = rows[np.uintp(row_of_place[place])], rows[np.uintp(row_of_place[place + np.uintp(1)])]
        c, d = rows[np.uintp(row_of_place[place + np.uintp(2)])], rows[np.uintp(row_of_place[place + np.uintp(3)])]
        e, f = rows[np.uintp(row_of_place[place + np.uintp(4)])], rows[np.uintp(row_of_place[place + np.uintp(5)])]
        g, h = rows[np.uintp(row_of_place[place + np.uintp(6)])], rows[np.uintp(row_of_place[place + np.uintp(7)])]
        channel = np.uintp(0)
        while channel < n_channels:
            plane = out[channel]
            plane[place] = a[channel]
            plane[place + np.uintp(1)] = b[channel]
            plane[place + np.uintp(2)] = c[channel]
            plane[place + np.uintp(3)] = d[channel]
            plane[place + np.uintp(4)] = e[channel]
            plane[place + np.uintp(5)] = f[channel]
            plane[place + np.uintp(6)] = g[channel]
            plane[place + np.uintp(7)] = h[channel]
            channel += one
        place += eight
    while place < n_places:
        row, channel = np.uintp(row_of_place[place]), np.uintp(0)
        while channel < n_channels:
            out[channel, place] = rows[row, channel]
            channel += one
        place += one


def _panel_examples(counts: np.dtype[Any]) -> list[tuple[Any, ...]]:
    wide = sample_dtype(counts)
    places, flags = np.empty(0, np.int64), np.empty(0, np.bool_)
    widths = [wide] if wide.kind == "f" else [np.dtype(np.uint8), wide]
    return [
        (
            example_slide(counts), Window(0, 0, 1, 1), GridPart(0, 0, 0, 0),
            PanelRows(np.empty(0, np.int32), places, flags, np.empty((1, 1), width)), np.empty((1, 1, 1), wide),
        )
        for width in widths
    ]  # fmt: skip


@kernel(stage="shard", examples=_panel_examples)
def gather_panel(slide: SlideArrays, window: Window, part: GridPart, panel: PanelRows, out: NDArray[Any]) -> Any:
    """Write a window's counts to `out` (channels, height, width) from its pixels' rows, which are filled if need be."""
    fill_panel_rows(slide, part, panel)
    rows, row_of_pixel = panel.rows, panel.row_of_pixel
    n_channels, height, width = out.shape
    places = np.full((height, width), len(rows) - 1)  # the last row is that of every pixel outside the grid
    for grid_row in range(part.first_row, part.end_row):
        for grid_col in range(part.first_col, part.end_col):
            places[grid_row - window.row, grid_col - window.col] = row_of_pixel[grid_row * slide.columns + grid_col]
    fetched = fetch_rows(rows, places.reshape(-1), n_channels)
    transpose_rows(rows, places.reshape(-1), out.reshape(n_channels, height * width))
    return fetched  # for the compiler, which leaves out what has no use
