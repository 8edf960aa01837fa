"""Compiled loops that find a window's counts of chosen genes.

The loops trust their arguments; `stpatch.image.slide_image.SlideImage` and `stpatch.image.panel.PanelImage` check them.
Places are unsigned, as numba tests every signed place for being negative.
"""

from __future__ import annotations

import numpy as np
from numba import njit

LINE = 64
"""Bytes of a cache line."""


@njit(cache=True, nogil=True)
def sound_rows(indices, indptr, n_genes):  # type: ignore[no-untyped-def]
    """Return the first row whose sorted genes pass the bounds, or -1."""
    for row in range(len(indptr) - 1):
        start, end = indptr[row], indptr[row + 1]
        if start > end or end > len(indices):
            return row
        if start < end and (indices[start] < 0 or indices[end - 1] >= n_genes):
            return row
    return -1


@njit(cache=True, nogil=True)
def place_channels(genes, step, offsets):  # type: ignore[no-untyped-def]
    """Fill `offsets` (the slide's genes,): `step` times a gene's channel, or times their number for a gene without one.

    `genes` are the channels' genes, -1 for none; return whether all are the slide's.
    """
    offsets[:] = len(genes) * step
    for channel in range(len(genes)):
        gene = genes[channel]
        if gene < -1 or gene >= len(offsets):
            return False
        if gene >= 0:
            offsets[gene] = channel * step
    return True


@njit(cache=True, nogil=True, inline="always")
def place_row(data, indices, start, end, offsets, place, out):  # type: ignore[no-untyped-def]
    """Write a row's counts to flat `out`, each at the offset of its gene plus `place`.

    There is no branch to mispredict: genes that are not wanted share one offset, whose values mean nothing. Four at a
    time, so that the loads of one do not wait for the stores of another.
    """
    one, two, three, four = np.uintp(1), np.uintp(2), np.uintp(3), np.uintp(4)
    j, stop = np.uintp(start), np.uintp(end)
    while j + four <= stop:
        first = np.uintp(offsets[np.uintp(indices[j])]) + place
        second = np.uintp(offsets[np.uintp(indices[j + one])]) + place
        third = np.uintp(offsets[np.uintp(indices[j + two])]) + place
        fourth = np.uintp(offsets[np.uintp(indices[j + three])]) + place
        a, b, c, d = data[j], data[j + one], data[j + two], data[j + three]
        out[first], out[second], out[third], out[fourth] = a, b, c, d
        j += four
    while j < stop:
        out[np.uintp(offsets[np.uintp(indices[j])]) + place] = data[j]
        j += one


@njit(cache=True, nogil=True, inline="always")
def add_row(data, indices, start, end, offsets, place, out):  # type: ignore[no-untyped-def]
    """Add a row's counts to flat `out`: a pixel of several spots."""
    for j in range(np.uintp(start), np.uintp(end)):
        out[np.uintp(offsets[np.uintp(indices[j])]) + place] += data[j]


@njit(cache=True, nogil=True)
def gather_window(  # type: ignore[no-untyped-def]
    data, indices, indptr, pixel_start, pixel_spots, columns, window, corner, width, offsets, out
):
    """Write the chosen genes' counts to `out`, flat (channels + 1, height * width) and zero; its last plane is scratch.

    `corner` is the patch's top-left pixel; `offsets` (genes,) are where the plane of a gene's channel begins in `out`,
    the scratch plane's for a gene without one.
    """
    for grid_row in range(window[0], window[1]):
        for grid_col in range(window[2], window[3]):
            pixel = grid_row * columns + grid_col
            place = np.uintp((grid_row - corner[0]) * width + grid_col - corner[1])
            first, end = pixel_start[pixel], pixel_start[pixel + 1]
            if end - first == 1:
                spot = pixel_spots[first]
                place_row(data, indices, indptr[spot], indptr[spot + 1], offsets, place, out)
                continue
            for k in range(first, end):
                spot = pixel_spots[k]
                add_row(data, indices, indptr[spot], indptr[spot + 1], offsets, place, out)


@njit(cache=True, nogil=True)
def fill_panel_rows(  # type: ignore[no-untyped-def]
    data, indices, indptr, pixel_start, pixel_spots, columns, window, channels, row_of_pixel, filled, rows
):
    """Fill the panel's rows of a window's pixels that no window has touched yet.

    `rows` (occupied pixels + 1, channels and at least one to spare) begins as zeros; `channels` (genes,) is a gene's
    column in it, the spare one for a gene that the panel has not.
    """
    out, stride = rows.reshape(-1), rows.shape[1]
    for grid_row in range(window[0], window[1]):
        for pixel in range(grid_row * columns + window[2], grid_row * columns + window[3]):
            row = row_of_pixel[pixel]
            if filled[row]:
                continue
            filled[row] = True
            place, first, end = np.uintp(row * stride), pixel_start[pixel], pixel_start[pixel + 1]
            if end - first == 1:
                spot = pixel_spots[first]
                place_row(data, indices, indptr[spot], indptr[spot + 1], channels, place, out)
                continue
            for k in range(first, end):
                spot = pixel_spots[k]
                add_row(data, indices, indptr[spot], indptr[spot + 1], channels, place, out)


@njit(cache=True, nogil=True)
def fetch_rows(rows, row_of_place, n_channels):  # type: ignore[no-untyped-def]
    """Read one item of each cache line of the places' rows, one row after the other; return their sum.

    So the processor sees what comes next; of eight rows that are read side by side it does not.
    """
    step, found = np.uintp(LINE // rows.itemsize), rows.dtype.type(0)
    for place in range(len(row_of_place)):
        row, channel = rows[np.uintp(row_of_place[place])], np.uintp(0)
        while channel < np.uintp(n_channels):
            found += row[channel]
            channel += step
    return found


@njit(cache=True, nogil=True)
def transpose_rows(rows, row_of_place, out):  # type: ignore[no-untyped-def]
    """Write `out` (channels, places): each place's row of `rows`, eight places at a time."""
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


@njit(cache=True, nogil=True)
def gather_panel(  # type: ignore[no-untyped-def]
    data, indices, indptr, pixel_start, pixel_spots, columns, window, corner, channels, row_of_pixel, filled, rows, out
):
    """Write a window's counts to `out` (channels, height, width) from its pixels' rows, which are filled if need be.

    `corner` is the patch's top-left pixel; the last of `rows` is that of an empty pixel.
    """
    fill_panel_rows(
        data, indices, indptr, pixel_start, pixel_spots, columns, window, channels, row_of_pixel, filled, rows
    )
    n_channels, height, width = out.shape
    places = np.full((height, width), len(rows) - 1)
    for grid_row in range(window[0], window[1]):
        for grid_col in range(window[2], window[3]):
            places[grid_row - corner[0], grid_col - corner[1]] = row_of_pixel[grid_row * columns + grid_col]
    fetched = fetch_rows(rows, places.reshape(-1), n_channels)
    transpose_rows(rows, places.reshape(-1), out.reshape(n_channels, height * width))
    return fetched  # for the compiler, which leaves out what has no use
