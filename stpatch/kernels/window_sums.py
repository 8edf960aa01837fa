"""Sums over the occupied pixels of a window, of every gene: what its moments are made of.

Sums run in a fixed order, pixel by pixel in reading order, so that they have the same bits on every machine. The loops
trust their arguments: `stpatch.image.slide_image.SlideImage` has checked once that every spot and gene is in bounds.
Places are unsigned where a loop is hot, as numba tests every signed place for being negative.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stpatch.kernels.formula import NONE, Formula
from stpatch.kernels.gather import example_slide
from stpatch.kernels.normalization import fill_table, normalized, tabled_value
from stpatch.kernels.pairs import add_four_with_squares, add_with_square
from stpatch.kernels.registry import kernel
from stpatch.kernels.window import GridPart, SlideArrays, Window

SUM, SQUARES = 0, 1
"""Columns of a window's sums."""

SHIFT, SHIFTED_SUM, SHIFTED_SQUARES, ENTRIES = 0, 1, 2, 3
"""Columns of the careful sums: the gene's value in the first pixel, then of value minus shift: sum, squares; number."""

DOUBTFUL = 1e-6
"""Below this squared coefficient of variation, plain sums may have lost the variance: it is measured carefully."""


class SumBuffers(NamedTuple):
    """What all windows of a slide share.

    Attributes
    ----------
    sums
        (genes, 2) float64, overwritten by every window.
    tables, tabled
        (spots, counts) float64 values of each spot's small counts, filled where `tabled` (spots,) says so.
    dense, seen
        (genes,) float64 and bool, scratch of a pixel of several spots, all zero before and after.
    genes, values
        (genes,) int32 and float64: such a pixel's genes, in the order in which they were met, and their values.
    slots
        (genes,) int32, a gene's row in the careful sums, -1 for the others.
    """

    sums: NDArray[np.float64]
    tables: NDArray[np.float64]
    tabled: NDArray[np.bool_]
    dense: NDArray[np.float64]
    seen: NDArray[np.bool_]
    genes: NDArray[np.int32]
    values: NDArray[np.float64]
    slots: NDArray[np.int32]

    @classmethod
    def of(cls, *, n_genes: int, n_spots: int, table_size: int) -> SumBuffers:
        """Make the buffers of a slide."""
        n_tables = max(n_spots, 1)
        return cls(
            sums=np.empty((n_genes, 2)),
            tables=np.empty((n_tables, table_size)),
            tabled=np.zeros(n_tables, np.bool_),
            dense=np.zeros(n_genes),
            seen=np.zeros(n_genes, np.bool_),
            genes=np.empty(n_genes, np.int32),
            values=np.empty(n_genes),
            slots=np.full(n_genes, -1, np.int32),
        )


@kernel()
def add_to_sums(
    data: NDArray[Any],
    genes: NDArray[Any],
    scale: float,
    method: int,
    table: NDArray[np.float64],
    sums: NDArray[np.float64],
) -> None:
    """Add one spot's values to the sums of their genes, each of which it has once.

    Four at a time: as the genes differ, no load has to wait for the store before it, which the compiler cannot know.
    """
    j, stop = np.uintp(0), np.uintp(len(data))
    one, two, three, four = np.uintp(1), np.uintp(2), np.uintp(3), np.uintp(4)
    while j + four <= stop:
        rows = (
            np.uintp(genes[j]), np.uintp(genes[j + one]), np.uintp(genes[j + two]), np.uintp(genes[j + three]),
        )  # fmt: skip
        values = (
            tabled_value(data[j], scale, method, table), tabled_value(data[j + one], scale, method, table),
            tabled_value(data[j + two], scale, method, table), tabled_value(data[j + three], scale, method, table),
        )  # fmt: skip
        add_four_with_squares(sums, rows, values)
        j += four
    while j < stop:
        add_with_square(sums, np.uintp(genes[j]), tabled_value(data[j], scale, method, table))
        j += one


@kernel()
def add_carefully(
    data: NDArray[Any],
    genes: NDArray[Any],
    scale: float,
    method: int,
    slots: NDArray[np.int32],
    first: bool,  # noqa: FBT001 - compiled
    careful: NDArray[np.float64],
) -> None:
    """Add one spot's values to the shifted sums of the genes that have a slot; the first spot gives the shifts.

    A sum of (value - shift) keeps the digits that a sum of values loses where the mean is large and the spread small.
    """
    for j in range(len(data)):
        slot = slots[np.uintp(genes[j])]
        if slot >= 0:
            value = normalized(float(data[j]), scale, method)
            if first:
                careful[slot, SHIFT] = value
            value -= careful[slot, SHIFT]
            careful[slot, SHIFTED_SUM] += value
            careful[slot, SHIFTED_SQUARES] += value * value
            careful[slot, ENTRIES] += 1.0


@kernel()
def merge_spots(
    slide: SlideArrays,
    spots: NDArray[np.int64],
    formula: Formula,
    averaged: bool,  # noqa: FBT001 - compiled
    buffers: SumBuffers,
) -> int:
    """Merge the spots of one pixel; return the number of genes written to the buffers' `genes` and `values`.

    A pixel holds the normalized sum of its spots' counts or, if `averaged`, the mean of their normalized values.
    `dense` adds up by gene number; `genes` lists the genes met, so that only these are read and cleared again: a pixel
    has hundreds of genes, a slide has tens of thousands.
    """
    data, indices, indptr, totals = slide.data, slide.indices, slide.indptr, slide.spot_totals
    dense, seen, genes, values = buffers.dense, buffers.seen, buffers.genes, buffers.values
    method, target = formula.method, formula.target_sum
    total = 0.0
    for spot in spots:
        total += totals[spot]
    found = 0
    for spot in spots:
        scale = target / totals[spot] if totals[spot] > 0 else 0.0
        for j in range(indptr[spot], indptr[spot + 1]):
            gene = np.uintp(indices[j])
            if not seen[gene]:
                seen[gene] = True
                genes[found] = indices[j]
                found += 1
            value = float(data[j])
            dense[gene] += normalized(value, scale, method) if averaged else value
    scale = target / total if total > 0 else 0.0
    for k in range(found):
        gene = np.uintp(genes[k])
        value = dense[gene]
        values[k] = value / len(spots) if averaged else normalized(value, scale, method)
        dense[gene] = 0.0
        seen[gene] = False
    return found


def _sum_window_examples(counts: np.dtype[Any]) -> list[tuple[Any, ...]]:
    buffers = SumBuffers.of(n_genes=1, n_spots=1, table_size=1)
    return [(example_slide(counts), GridPart(0, 0, 0, 0), Formula(), False, buffers, np.empty((0, 4)))]


@kernel(stage="shard", examples=_sum_window_examples)
def sum_window(
    slide: SlideArrays,
    part: GridPart,
    formula: Formula,
    averaged: bool,  # noqa: FBT001 - compiled
    buffers: SumBuffers,
    careful: NDArray[np.float64],
) -> int:
    """Fill the window's sums; return its number of occupied pixels.

    Parameters
    ----------
    part
        The window's part on the grid.
    averaged
        Whether a pixel of several spots holds the mean of their values, not the value of their sum.
    buffers
        Its `sums` are filled where `careful` is empty.
    careful
        (slots, 4), filled for the genes that have a slot in the buffers; empty: all genes are summed plainly.
    """
    data, indices, indptr, totals = slide.data, slide.indices, slide.indptr, slide.spot_totals
    pixel_start, pixel_spots = slide.pixel_start, slide.pixel_spots
    tables, tabled, sums, slots = buffers.tables, buffers.tabled, buffers.sums, buffers.slots
    method, target = formula.method, formula.target_sum
    if len(careful):
        careful[:] = 0.0
    else:
        sums[:] = 0.0
    occupied = 0
    for grid_row in range(part.first_row, part.end_row):
        row_start = grid_row * slide.columns
        for pixel in range(row_start + part.first_col, row_start + part.end_col):
            first, end = pixel_start[pixel], pixel_start[pixel + 1]
            if first == end:
                continue
            occupied += 1
            if end - first == 1:  # nearly all pixels: their counts are read where they lie
                spot = pixel_spots[first]
                begin, stop = indptr[spot], indptr[spot + 1]
                scale = target / totals[spot] if totals[spot] > 0 else 0.0
                if len(careful):
                    add_carefully(
                        data[begin:stop], indices[begin:stop], scale, method, slots, occupied == 1, careful
                    )  # fmt: skip
                else:
                    if not tabled[spot]:  # windows overlap, so most spots have their table already
                        fill_table(scale, method, tables[spot])
                        tabled[spot] = True
                    add_to_sums(data[begin:stop], indices[begin:stop], scale, method, tables[spot], sums)
                continue
            found = merge_spots(slide, pixel_spots[first:end], formula, averaged, buffers)
            genes, values = buffers.genes[:found], buffers.values[:found]
            if len(careful):
                add_carefully(values, genes, 1.0, NONE, slots, occupied == 1, careful)
            else:
                add_to_sums(values, genes, 1.0, NONE, tables[0], sums)
    return occupied


def _moments_examples(_counts: np.dtype[Any]) -> list[tuple[Any, ...]]:
    return [(np.empty((0, 2)), 1, np.empty(0), np.empty(0))]


@kernel(stage="shard", examples=_moments_examples)
def moments_of_sums(sums: NDArray[np.float64], n: int, mean: NDArray[np.float64], variance: NDArray[np.float64]) -> int:
    """Turn sums into moments over all `n` occupied pixels; return the number of doubtful genes, marked by -1.

    Without branches, and with one division for all genes, so that the compiler does several genes at once.
    """
    share = 1.0 / n
    for gene in range(len(sums)):
        average = sums[gene, SUM] * share
        square = average * average
        spread = sums[gene, SQUARES] * share - square
        mean[gene] = average
        # `&`, not `and`: a branch would stop the vectors
        variance[gene] = -1.0 if (spread <= DOUBTFUL * square) & (average != 0.0) else spread
    doubtful = 0
    for gene in range(len(variance)):
        doubtful += variance[gene] < 0.0
    return doubtful


def _careful_examples(_counts: np.dtype[Any]) -> list[tuple[Any, ...]]:
    return [(np.empty((0, 4)), 1, np.empty(0, np.int64), np.empty(0), np.empty(0))]


@kernel(stage="shard", examples=_careful_examples)
def careful_moments(
    careful: NDArray[np.float64],
    n: int,
    genes: NDArray[np.int64],
    mean: NDArray[np.float64],
    variance: NDArray[np.float64],
) -> None:
    """Replace the moments of doubtful genes by those of their shifted sums.

    The pixels that store nothing of a gene hold 0, which is -shift after the shift: they are added all at once.
    """
    for slot in range(len(careful)):
        shift = careful[slot, SHIFT]
        missing = n - careful[slot, ENTRIES]
        offset = (careful[slot, SHIFTED_SUM] - missing * shift) / n
        squares = careful[slot, SHIFTED_SQUARES] + missing * (shift * shift)
        mean[genes[slot]] = shift + offset
        variance[genes[slot]] = max(squares / n - offset * offset, 0.0)


def _average_examples(counts: np.dtype[Any]) -> list[tuple[Any, ...]]:
    window, planes = Window(0, 0, 1, 1), np.empty(0, np.int32)
    return [(example_slide(counts), window, GridPart(0, 0, 0, 0), Formula(), planes, np.empty((1, 1)))]


@kernel(examples=_average_examples)
def average_window(
    slide: SlideArrays,
    window: Window,
    part: GridPart,
    formula: Formula,
    channels: NDArray[Any],
    out: NDArray[np.float64],
) -> None:
    """Add the mean of the spots' normalized values to `out` (channels + 1, height * width), float64.

    `channels` (genes,) is each gene's plane in `out`, the last one for a gene without a channel.
    """
    data, indices, indptr, totals = slide.data, slide.indices, slide.indptr, slide.spot_totals
    for grid_row in range(part.first_row, part.end_row):
        for grid_col in range(part.first_col, part.end_col):
            pixel = grid_row * slide.columns + grid_col
            place = np.uintp((grid_row - window.row) * window.width + grid_col - window.col)
            first, end = slide.pixel_start[pixel], slide.pixel_start[pixel + 1]
            share = end - first
            for k in range(first, end):
                spot = slide.pixel_spots[k]
                scale = formula.target_sum / totals[spot] if totals[spot] > 0 else 0.0
                for j in range(indptr[spot], indptr[spot + 1]):
                    channel = np.uintp(channels[np.uintp(indices[j])])
                    if channel + np.uintp(1) < np.uintp(len(out)):
                        out[channel, place] += normalized(float(data[j]), scale, formula.method) / share
