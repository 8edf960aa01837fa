"""Compiled sums over the columns of a whole slide, (spots, genes).

The loops trust their arguments; `stpatch.expression.moments` checks them.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from stpatch.expression.kernels import normalized


@njit(cache=True, nogil=True)
def add_counts(data, indices, total, squares, detected):  # type: ignore[no-untyped-def]
    """Add counts and squared counts in float64, exact below 2**53, and the number of stored entries."""
    for j in range(len(data)):
        gene, x = np.uintp(indices[j]), np.float64(data[j])
        total[gene] += x
        squares[gene] += x * x
        detected[gene] += 1


@njit(cache=True, nogil=True, error_model="numpy")
def add_values(data, indices, indptr, scale, method, table, total, stored):  # type: ignore[no-untyped-def]
    """Add the normalized values to `total` and their number to `stored`; `table` is scratch for small counts."""
    for spot in range(len(indptr) - 1):
        fill_table(scale[spot], method, table)
        for j in range(indptr[spot], indptr[spot + 1]):
            gene = np.uintp(indices[j])
            total[gene] += value_of(data[j], scale[spot], method, table)
            stored[gene] += 1


@njit(cache=True, nogil=True, error_model="numpy")
def add_deviations(data, indices, indptr, scale, method, table, mean, squares):  # type: ignore[no-untyped-def]
    """Add the squared deviations from the genes' means to `squares` (genes,)."""
    for spot in range(len(indptr) - 1):
        fill_table(scale[spot], method, table)
        for j in range(indptr[spot], indptr[spot + 1]):
            gene = np.uintp(indices[j])
            deviation = value_of(data[j], scale[spot], method, table) - mean[gene]
            squares[gene] += deviation * deviation


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def fill_table(scale, method, table):  # type: ignore[no-untyped-def]
    """Write the values of the counts 0, 1, 2, ... of a spot."""
    for count in range(len(table)):
        table[count] = normalized(float(count), scale, method)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def value_of(x, scale, method, table):  # type: ignore[no-untyped-def]
    """Return the normalized value of a count, from the table where it has it."""
    place = np.uintp(x)
    return table[place] if place < np.uintp(len(table)) else normalized(np.float64(x), scale, method)
