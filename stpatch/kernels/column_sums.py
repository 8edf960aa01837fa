"""Sums over the columns of a whole slide, (spots, genes), in one pass over its stored counts.

The loops trust their arguments; `stpatch.expression.moments` checks them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.kernels.formula import NONE
from stpatch.kernels.normalization import fill_table, tabled_value
from stpatch.kernels.pairs import add_with_square
from stpatch.kernels.registry import kernel, mapped
from stpatch.kernels.window import GeneNumbers

COUNT, COUNT_SQUARES, VALUE, VALUE_SQUARES, SCALED, SCALED_SQUARES, STORED, COLUMNS = 0, 1, 2, 3, 4, 5, 6, 8
"""Columns of a slide's sums, squares next to what they are of: one cache line a gene."""

Rows = tuple[NDArray[Any], GeneNumbers, NDArray[Any]]
"""CSR arrays of (spots, genes): data, indices, indptr."""


def _example_rows(counts: np.dtype[Any]) -> Rows:
    return mapped(counts), mapped(np.uint16), mapped(np.int64)


def _moments_examples(counts: np.dtype[Any]) -> list[tuple[Any, ...]]:
    return [(_example_rows(counts), np.empty(0), NONE, np.empty(0), np.empty((0, COLUMNS)))]


@kernel(stage="normalize", examples=_moments_examples)
def add_moments(
    rows: Rows,
    scale: NDArray[np.float64],
    method: int,
    table: NDArray[np.float64],
    sums: NDArray[np.float64],
) -> None:
    """Add counts, normalized and scaled values, their squares and their number to `sums` (genes, COLUMNS) float64.

    Sums of counts are exact below 2**53. A gene's sums fill one cache line, which is all that a stored count touches.

    Parameters
    ----------
    scale
        (spots,) target_sum / total.
    method
        Of `stpatch.kernels.formula.METHODS`.
    table
        Scratch for the values of a spot's small counts; empty: none are kept.
    """
    data, indices, indptr = rows
    pairs = sums.reshape(-1, 2)  # a sum and that of squares, added at once
    counts, values, scaled, stored = np.uintp(COUNT // 2), np.uintp(VALUE // 2), np.uintp(SCALED // 2), np.uintp(STORED)
    one, width = np.uintp(1), np.uintp(COLUMNS // 2)  # unsigned, as numba tests every signed place for being negative
    for spot in range(len(indptr) - 1):
        fill_table(scale[spot], method, table)
        j, stop = np.uintp(indptr[spot]), np.uintp(indptr[spot + 1])
        while j < stop:
            gene, x = np.uintp(indices[j]), np.float64(data[j])
            add_with_square(pairs, gene * width + counts, x)
            value = tabled_value(data[j], scale[spot], method, table)
            add_with_square(pairs, gene * width + values, value)
            add_with_square(pairs, gene * width + scaled, x * scale[spot])
            sums[gene, stored] += 1.0
            j += one


def _deviations_examples(counts: np.dtype[Any]) -> list[tuple[Any, ...]]:
    numbers, slots = np.empty(0), np.empty(0, np.int32)
    return [(_example_rows(counts), numbers, NONE, numbers, slots, numbers, numbers)]


@kernel(stage="normalize", examples=_deviations_examples)
def add_deviations(
    rows: Rows,
    scale: NDArray[np.float64],
    method: int,
    table: NDArray[np.float64],
    slots: NDArray[np.int32],
    mean: NDArray[np.float64],
    squares: NDArray[np.float64],
) -> None:
    """Add the squared deviations from the means to `squares` (slots,), for the genes that have a slot.

    A second pass, over the few genes whose plain sums lost the deviations in a large mean.
    """
    data, indices, indptr = rows
    for spot in range(len(indptr) - 1):
        fill_table(scale[spot], method, table)
        for j in range(indptr[spot], indptr[spot + 1]):
            slot = slots[np.uintp(indices[j])]
            if slot >= 0:
                deviation = tabled_value(data[j], scale[spot], method, table) - mean[slot]
                squares[slot] += deviation * deviation
