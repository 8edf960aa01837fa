"""Compiled loops that find a window's counts of chosen genes.

The loops trust their arguments; `stpatch.image.patch.SlideImage` checks them.
"""

from __future__ import annotations

import numpy as np
from numba import njit


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
def find_hits(indices, start, end, chosen, hits):  # type: ignore[no-untyped-def]
    """Write the places (from `start`) of a row's chosen genes to `hits`; return their number.

    Every place is written and the next one overwrites it unless it is a hit: no branch, so nothing is mispredicted.
    Four at a time, and all unsigned, as numba tests every signed place for being negative.
    """
    one, two, three, four = np.uintp(1), np.uintp(2), np.uintp(3), np.uintp(4)
    begin = np.uintp(start)
    size = np.uintp(end) - begin
    i = found = np.uintp(0)
    while i + four <= size:
        j = begin + i
        second = found + np.uintp(chosen[np.uintp(indices[j])])
        third = second + np.uintp(chosen[np.uintp(indices[j + one])])
        fourth = third + np.uintp(chosen[np.uintp(indices[j + two])])
        after = fourth + np.uintp(chosen[np.uintp(indices[j + three])])
        hits[found], hits[second], hits[third], hits[fourth] = i, i + one, i + two, i + three
        found = after
        i += four
    while i < size:
        hits[found] = i
        found += np.uintp(chosen[np.uintp(indices[begin + i])])
        i += one
    return found


@njit(cache=True, nogil=True)
def gather_window(  # type: ignore[no-untyped-def]
    data, indices, indptr, pixel_start, pixel_spots, columns, window, corner, width, chosen, channels, hits, out
):
    """Add the chosen genes' counts to `out` (channels, height * width).

    `corner` is the patch's top-left pixel, `chosen` (genes,) uint8 marks the genes that `channels` (genes,) places.
    """
    for grid_row in range(window[0], window[1]):
        for grid_col in range(window[2], window[3]):
            pixel = grid_row * columns + grid_col
            place = np.uintp((grid_row - corner[0]) * width + grid_col - corner[1])
            for k in range(pixel_start[pixel], pixel_start[pixel + 1]):
                spot = pixel_spots[k]
                found = find_hits(indices, indptr[spot], indptr[spot + 1], chosen, hits)
                begin = np.uintp(indptr[spot])
                for hit in range(found):
                    entry = begin + np.uintp(hits[np.uintp(hit)])
                    out[np.uintp(channels[np.uintp(indices[entry])]), place] += data[entry]


@njit(cache=True, nogil=True)
def gather_panel_window(  # type: ignore[no-untyped-def]
    data, indices, indptr, pixel_start, pixel_spots, columns, window, corner, width, out
):
    """Add counts to `out` (channels, height * width), `indices` being channels already."""
    for grid_row in range(window[0], window[1]):
        for grid_col in range(window[2], window[3]):
            pixel = grid_row * columns + grid_col
            place = np.uintp((grid_row - corner[0]) * width + grid_col - corner[1])
            for k in range(pixel_start[pixel], pixel_start[pixel + 1]):
                spot = pixel_spots[k]
                for j in range(indptr[spot], indptr[spot + 1]):
                    out[np.uintp(indices[j]), place] += data[j]


@njit(cache=True, nogil=True)
def reduce_to_chosen(data, indices, indptr, channels, out_data, out_channels, out_indptr):  # type: ignore[no-untyped-def]
    """Copy the entries of genes with a channel, row by row; return their number. The outputs have one to spare."""
    found = np.uintp(0)
    out_indptr[0] = 0
    for row in range(len(indptr) - 1):
        for j in range(indptr[row], indptr[row + 1]):
            channel = channels[np.uintp(indices[j])]
            out_data[found] = data[j]
            out_channels[found] = channel
            found += np.uintp(channel >= 0)
        out_indptr[row + 1] = found
    return found
