"""Compiled sums over the columns of a whole slide, (spots, genes).

The loops trust their arguments; `stpatch.expression.moments` checks them.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from stpatch.kernels.window import add_with_square, fill_table, normalized

COUNT, COUNT_SQUARES, VALUE, VALUE_SQUARES, SCALED, SCALED_SQUARES, STORED, COLUMNS = 0, 1, 2, 3, 4, 5, 6, 8
"""Columns of a slide's sums, squares next to what they are of: one cache line a gene."""


@njit(cache=True, nogil=True, error_model="numpy")
def add_moments(data, indices, indptr, scale, method, table, sums):  # type: ignore[no-untyped-def]
    """Add counts, normalized and scaled values, their squares and their number to `sums` (genes, COLUMNS) float64.

    Sums of counts are exact below 2**53; `table` is scratch for the values of small counts.
    """
    pairs = sums.reshape(-1, 2)  # a sum and that of squares, added at once
    counts, values, scaled, stored = np.uintp(COUNT // 2), np.uintp(VALUE // 2), np.uintp(SCALED // 2), np.uintp(STORED)
    one, width = np.uintp(1), np.uintp(COLUMNS // 2)  # unsigned, as numba tests every signed place for being negative
    for spot in range(len(indptr) - 1):
        fill_table(scale[spot], method, table)
        j, stop = np.uintp(indptr[spot]), np.uintp(indptr[spot + 1])
        while j < stop:
            gene, x = np.uintp(indices[j]), np.float64(data[j])
            add_with_square(pairs, gene * width + counts, x)  # type: ignore[call-arg]
            value = value_of(data[j], scale[spot], method, table)
            add_with_square(pairs, gene * width + values, value)
            add_with_square(pairs, gene * width + scaled, x * scale[spot])
            sums[gene, stored] += 1.0
            j += one


@njit(cache=True, nogil=True, error_model="numpy")
def add_deviations(data, indices, indptr, scale, method, table, slots, mean, squares):  # type: ignore[no-untyped-def]
    """Add the squared deviations from the means to `squares` (slots,), for the genes that have a slot."""
    for spot in range(len(indptr) - 1):
        fill_table(scale[spot], method, table)
        for j in range(indptr[spot], indptr[spot + 1]):
            slot = slots[np.uintp(indices[j])]
            if slot >= 0:
                deviation = value_of(data[j], scale[spot], method, table) - mean[slot]
                squares[slot] += deviation * deviation


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def value_of(x, scale, method, table):  # type: ignore[no-untyped-def]
    """Return the normalized value of a count, from the table where it has it."""
    place = np.uintp(x)
    return table[place] if place < np.uintp(len(table)) else normalized(np.float64(x), scale, method)
