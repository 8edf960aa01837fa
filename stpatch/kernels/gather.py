"""Loops that find a window's counts of chosen genes.

::

    spot s:   indices  3  7  8 ...         offsets[gene]: where the gene's plane begins in flat `out`
              data     1  4  2 ...         place: the pixel inside the plane
                       |                   out[offsets[3] + place] = 1
                       v
    out:      [plane of channel 0 | plane of channel 1 | ... | scratch plane of all genes without a channel]

The loops trust their arguments: `stpatch.image.slide_image.SlideImage` and `stpatch.image.panel.PanelImage` check them.
Places are unsigned, as numba tests every signed place for being negative.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.kernels.registry import kernel, mapped
from stpatch.kernels.window import GeneNumbers, GridPart, SlideArrays, Window


def example_slide(counts: np.dtype[Any]) -> SlideArrays:
    """Return an example of a mapped slide."""
    places = np.empty(0, np.int64)
    return SlideArrays(
        data=mapped(counts),
        indices=mapped(np.uint16),
        indptr=mapped(np.int64),
        spot_totals=np.empty(0),
        pixel_start=places,
        pixel_spots=places,
        columns=1,
    )


def sample_dtype(counts: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in which such counts are gathered, where no sum of spots passes it."""
    return np.dtype(np.float32) if counts.kind == "f" else np.dtype(np.uint16)


def _rows_examples(_counts: np.dtype[Any]) -> list[tuple[Any, ...]]:
    return [(mapped(np.uint16), mapped(np.int64), 1)]


@kernel(stage="shard", examples=_rows_examples)
def sound_rows(indices: GeneNumbers, indptr: NDArray[np.int64], n_genes: int) -> int:
    """Return the first row whose sorted genes pass the bounds, or -1: what lets the other loops trust the slide."""
    for row in range(len(indptr) - 1):
        start, end = indptr[row], indptr[row + 1]
        if start > end or end > len(indices):
            return row
        if start < end and (indices[start] < 0 or indices[end - 1] >= n_genes):
            return row
    return -1


def _place_examples(_counts: np.dtype[Any]) -> list[tuple[Any, ...]]:
    return [(np.empty(0, np.int32), 1, np.empty(0, np.int32))]


@kernel(stage="shard", examples=_place_examples)
def place_channels(genes: NDArray[np.int32], step: int, offsets: NDArray[Any]) -> bool:
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


@kernel(inline=True)
def place_row(
    data: NDArray[Any],
    indices: GeneNumbers,
    start: int,
    end: int,
    offsets: NDArray[Any],
    place: Any,
    out: NDArray[Any],
) -> None:
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


@kernel(inline=True)
def add_row(
    data: NDArray[Any],
    indices: GeneNumbers,
    start: int,
    end: int,
    offsets: NDArray[Any],
    place: Any,
    out: NDArray[Any],
) -> None:
    """Add a row's counts to flat `out`: a pixel of several spots."""
    for j in range(np.uintp(start), np.uintp(end)):  # unsigned in the compiled loop
        out[np.uintp(offsets[np.uintp(indices[j])]) + place] += data[j]


def _gather_examples(counts: np.dtype[Any]) -> list[tuple[Any, ...]]:
    out = np.empty(0, sample_dtype(counts))
    return [(example_slide(counts), Window(0, 0, 1, 1), GridPart(0, 0, 0, 0), np.empty(0, np.int32), out)]


@kernel(stage="shard", examples=_gather_examples)
def gather_window(slide: SlideArrays, window: Window, part: GridPart, offsets: NDArray[Any], out: NDArray[Any]) -> None:
    """Write the chosen genes' counts to `out`, flat (channels + 1, height * width) and zero; its last plane is scratch.

    Parameters
    ----------
    part
        The window's part on the grid: pixels outside it stay zero.
    offsets
        (genes,) where the plane of a gene's channel begins in `out`; the scratch plane's for a gene without one.
    """
    data, indices, indptr = slide.data, slide.indices, slide.indptr
    pixel_start, pixel_spots = slide.pixel_start, slide.pixel_spots
    for grid_row in range(part.first_row, part.end_row):
        for grid_col in range(part.first_col, part.end_col):
            pixel = grid_row * slide.columns + grid_col
            place = np.uintp((grid_row - window.row) * window.width + grid_col - window.col)
            first, end = pixel_start[pixel], pixel_start[pixel + 1]
            if end - first == 1:
                spot = pixel_spots[first]
                place_row(data, indices, indptr[spot], indptr[spot + 1], offsets, place, out)
                continue
            for k in range(first, end):
                spot = pixel_spots[k]
                add_row(data, indices, indptr[spot], indptr[spot + 1], offsets, place, out)
