"""Compiled passes over CSR arrays: relabel, merge and filter, in place where the input may be consumed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import sparse

from stpatch.slides.slide import gene_number_dtype

Csr = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
"""Values, column numbers (uint16 or int32) and row pointers (int64; int32 in what a reader returns)."""


@njit(cache=True, nogil=True)
def _relabel(
    data: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[Any],
    rows: NDArray[np.int64],
    columns: NDArray[np.int32],
    out_data: NDArray[Any],
    out_indices: NDArray[Any],
    out_indptr: NDArray[np.int64],
) -> int:
    end, one = np.uintp(0), np.uintp(1)  # unsigned, as numba tests every signed place for being negative
    for i in range(len(rows)):
        start, stop = np.uintp(indptr[rows[i]]), np.uintp(indptr[rows[i] + 1])
        last, plain = -1, True
        j = start
        while j < stop:
            column = columns[np.uintp(indices[j])]
            if column <= last or data[j] == 0:
                plain = False
                break
            last = column
            j += one
        if plain:
            j = start
            while j < stop:
                out_indices[end] = columns[np.uintp(indices[j])]
                out_data[end] = data[j]
                end += one
                j += one
        else:
            end += np.uintp(
                _merge_row(data[start:stop], indices[start:stop], columns, out_data[end:], out_indices[end:])
            )
        out_indptr[i + 1] = end
    return int(end)


@njit(cache=True, nogil=True)
def _merge_row(
    data: NDArray[Any],
    indices: NDArray[Any],
    columns: NDArray[np.int32],
    out_data: NDArray[Any],
    out_indices: NDArray[Any],
) -> int:
    end = 0
    ordered = True
    for j in range(len(data)):
        column = columns[indices[j]]
        if column < 0 or data[j] == 0:
            continue
        if end > 0 and out_indices[end - 1] >= column:
            ordered = False
        out_indices[end] = column
        out_data[end] = data[j]
        end += 1
    if ordered:
        return end
    order = np.argsort(out_indices[:end], kind="mergesort")
    row_indices = out_indices[:end][order]
    row_data = out_data[:end][order]
    end = 0
    for k in range(len(order)):
        if end > 0 and out_indices[end - 1] == row_indices[k]:
            out_data[end - 1] += row_data[k]
        else:
            out_indices[end] = row_indices[k]
            out_data[end] = row_data[k]
            end += 1
    return end


@njit(cache=True, nogil=True)
def _is_canonical(indices: NDArray[Any], indptr: NDArray[Any]) -> bool:
    for row in range(len(indptr) - 1):
        for j in range(np.uintp(indptr[row]) + np.uintp(1), np.uintp(indptr[row + 1])):
            if indices[j - np.uintp(1)] >= indices[j]:
                return False
    return True


@njit(cache=True, nogil=True)
def _filter_in_place(
    data: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[np.int64],
    keep_rows: NDArray[np.bool_],
    columns: NDArray[np.int32],
) -> tuple[int, int]:
    end = 0
    out_row = 0
    for row in range(len(keep_rows)):
        start, stop = indptr[row], indptr[row + 1]
        if not keep_rows[row]:
            continue
        indptr[out_row] = end
        for j in range(start, stop):
            column = columns[indices[j]]
            if column >= 0:
                indices[end] = column
                data[end] = data[j]
                end += 1
        out_row += 1
    indptr[out_row] = end
    return out_row, end


@njit(cache=True, nogil=True)
def _row_sums(
    data: NDArray[Any], indices: NDArray[Any], indptr: NDArray[Any], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    sums = np.zeros(len(indptr) - 1)
    for row in range(len(sums)):
        total = 0.0
        for j in range(indptr[row], indptr[row + 1]):
            total += data[j] * weights[indices[j]]
        sums[row] = total
    return sums


@njit(cache=True, nogil=True)
def _row_facts(
    data: NDArray[Any], indptr: NDArray[Any], zero: np.int64 | np.float64
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    sums, maxima = np.zeros(len(indptr) - 1), np.zeros(len(indptr) - 1)
    for row in range(len(sums)):
        total = largest = zero  # an integer where the values are: such a sum is not tied to its order
        for value in data[indptr[row] : indptr[row + 1]]:
            total += value
            largest = max(largest, zero + value)
        sums[row], maxima[row] = total, largest
    return sums, maxima


@njit(cache=True, nogil=True)
def _column_sums(
    data: NDArray[Any], indices: NDArray[Any], n_columns: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    sums = np.zeros(n_columns)
    stored = np.zeros(n_columns, np.int64)
    for j in range(len(data)):
        sums[indices[j]] += data[j]
        stored[indices[j]] += data[j] != 0
    return sums, stored


@njit(cache=True, nogil=True)
def _stored_in_rows(
    indices: NDArray[Any], indptr: NDArray[np.int64], rows: NDArray[np.bool_], n_columns: int
) -> NDArray[np.int64]:
    stored = np.zeros(n_columns, np.int64)
    for row in range(len(rows)):
        if rows[row]:
            for j in range(indptr[row], indptr[row + 1]):
                stored[indices[j]] += 1
    return stored


def relabel(
    counts: sparse.csr_matrix,
    *,
    rows: NDArray[np.int64],
    columns: NDArray[np.int32],
    dtype: np.dtype[Any],
    consume: bool = False,
) -> Csr:
    """Take rows in a new order and give columns new numbers; columns of one number are summed, negative ones dropped.

    Parameters
    ----------
    counts
        (spots, columns); explicit zeros are dropped, rows need not be sorted.
    rows
        Row numbers of the result, in order.
    columns
        (columns,) new number of each column, -1 to drop it.
    dtype
        Of the result's data; the caller has made sure that sums fit.
    consume
        `counts` is left empty: the result is made in its memory where rows stay in place and the types are right.

    Returns
    -------
    data, indices, indptr
        Rows strictly ascending in column number; numbers of the type that `gene_number_dtype` says.
    """
    numbers = gene_number_dtype(int(columns.max(initial=-1)) + 1)
    in_place = consume and _is_reusable(counts, dtype, numbers) and bool(np.array_equal(rows, np.arange(len(rows))))
    size = int(np.diff(counts.indptr)[rows].sum())
    data = counts.data if in_place else np.empty(size, dtype)
    indices = counts.indices if in_place else np.empty(size, numbers)
    indptr = np.zeros(len(rows) + 1, np.int64)
    end = int(_relabel(counts.data, counts.indices, counts.indptr, rows, columns, data, indices, indptr))
    if consume:
        counts.data, counts.indices = np.empty(0, counts.data.dtype), np.empty(0, counts.indices.dtype)
        counts.indptr = np.zeros(counts.shape[0] + 1, np.int64)
    return data[:end], indices[:end], indptr


def _is_reusable(counts: sparse.csr_matrix, dtype: np.dtype[Any], numbers: np.dtype[Any]) -> bool:
    arrays = (counts.data, counts.indices)
    return [array.dtype for array in arrays] == [dtype, numbers] and all(array.flags.writeable for array in arrays)


def is_canonical(csr: Csr) -> bool:
    """Whether column numbers ascend strictly in every row."""
    return bool(_is_canonical(csr[1], csr[2]))


def filter_in_place(csr: Csr, *, keep_rows: NDArray[np.bool_], columns: NDArray[np.int32]) -> Csr:
    """Drop rows and columns without a copy; the input is consumed.

    `columns` gives each column's new number, ascending, -1 to drop it.
    """
    data, indices, indptr = csr
    n_rows, end = _filter_in_place(data, indices, indptr, keep_rows, columns)
    return data[:end], indices[:end], indptr[: n_rows + 1]


def row_sums(csr: Csr, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (rows,) sums of the values times their column's weight."""
    return np.asarray(_row_sums(*csr, weights))


def row_facts(csr: Csr) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (rows,) sums, and (rows,) largest values, 0 where none is larger."""
    zero: np.int64 | np.float64 = np.int64(0) if csr[0].dtype.kind in "iu" else np.float64(0)
    sums, maxima = _row_facts(csr[0], csr[2], zero)
    return np.asarray(sums), np.asarray(maxima)


def stored_in_rows(csr: Csr, rows: NDArray[np.bool_], n_columns: int) -> NDArray[np.int64]:
    """Return (columns,) how many values are stored in the rows that `rows` marks."""
    return np.asarray(_stored_in_rows(csr[1], csr[2], rows, n_columns))


def column_sums(csr: Csr, n_columns: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return (columns,) sums and numbers of nonzero values."""
    sums, stored = _column_sums(csr[0], csr[1], n_columns)
    return np.asarray(sums), np.asarray(stored)
