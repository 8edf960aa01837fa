"""Compiled passes over CSR arrays: relabel, merge and filter, in place where the input may be consumed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import sparse

Csr = tuple[NDArray[Any], NDArray[np.int32], NDArray[np.int64]]


@njit(cache=True, nogil=True)
def _relabel(
    data: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[Any],
    rows: NDArray[np.int64],
    columns: NDArray[np.int32],
    out_data: NDArray[Any],
    out_indices: NDArray[np.int32],
    out_indptr: NDArray[np.int64],
) -> int:
    end = 0
    for i in range(len(rows)):
        start = end
        ordered = True
        for j in range(indptr[rows[i]], indptr[rows[i] + 1]):
            column = columns[indices[j]]
            if column < 0 or data[j] == 0:
                continue
            if end > start and out_indices[end - 1] >= column:
                ordered = False
            out_indices[end] = column
            out_data[end] = data[j]
            end += 1
        if not ordered:
            order = np.argsort(out_indices[start:end], kind="mergesort")
            row_indices = out_indices[start:end][order]
            row_data = out_data[start:end][order]
            end = start
            for k in range(len(order)):
                if end > start and out_indices[end - 1] == row_indices[k]:
                    out_data[end - 1] += row_data[k]
                else:
                    out_indices[end] = row_indices[k]
                    out_data[end] = row_data[k]
                    end += 1
        out_indptr[i + 1] = end
    return end


@njit(cache=True, nogil=True)
def _taken(
    values: NDArray[Any], indptr: NDArray[np.int64], rows: NDArray[np.int64], starts: NDArray[np.int64]
) -> NDArray[Any]:
    out = np.empty(starts[-1], values.dtype)
    for i in range(len(rows)):
        out[starts[i] : starts[i + 1]] = values[indptr[rows[i]] : indptr[rows[i] + 1]]
    return out


@njit(cache=True, nogil=True)
def _count_kept(
    data: NDArray[Any], indices: NDArray[Any], indptr: NDArray[Any], rows: NDArray[np.int64], columns: NDArray[np.int32]
) -> int:
    kept = 0
    for row in rows:
        for j in range(indptr[row], indptr[row + 1]):
            if columns[indices[j]] >= 0 and data[j] != 0:
                kept += 1
    return kept


@njit(cache=True, nogil=True)
def _filter_in_place(
    data: NDArray[Any],
    indices: NDArray[np.int32],
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
def _row_maxima(data: NDArray[Any], indptr: NDArray[Any]) -> NDArray[np.float64]:
    maxima = np.zeros(len(indptr) - 1)
    for row in range(len(maxima)):
        for j in range(indptr[row], indptr[row + 1]):
            maxima[row] = max(maxima[row], data[j])
    return maxima


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
        Where the types are right already, work in the memory of `counts`, which is left empty.

    Returns
    -------
    data, indices, indptr
        Rows strictly ascending in column number.
    """
    in_order = len(rows) == counts.shape[0] and bool((rows == np.arange(len(rows))).all())
    if consume and _is_reusable(counts, dtype):
        arrays = _relabel_in_place(counts, columns)
        return (arrays[0], arrays[1], arrays[2]) if in_order else _rows_taken(arrays, rows)
    kept = int(_count_kept(counts.data, counts.indices, counts.indptr, rows, columns))
    data, indices = np.empty(kept, dtype), np.empty(kept, np.int32)
    indptr = np.zeros(len(rows) + 1, np.int64)
    end = int(_relabel(counts.data, counts.indices, counts.indptr, rows, columns, data, indices, indptr))
    return data[:end], indices[:end], indptr


def _is_reusable(counts: sparse.csr_matrix, dtype: np.dtype[Any]) -> bool:
    arrays = (counts.data, counts.indices)
    return [array.dtype for array in arrays] == [dtype, np.int32] and all(array.flags.writeable for array in arrays)


def _relabel_in_place(counts: sparse.csr_matrix, columns: NDArray[np.int32]) -> list[NDArray[Any]]:
    """Relabel columns in the matrix's own memory, and leave the matrix empty: a row's result never overruns the row."""
    data, indices = counts.data, counts.indices
    indptr = np.zeros(counts.shape[0] + 1, np.int64)
    rows = np.arange(counts.shape[0])
    end = int(_relabel(data, indices, counts.indptr, rows, columns, data, indices, indptr))
    counts.data, counts.indices, counts.indptr = np.empty(0, data.dtype), np.empty(0, np.int32), np.zeros_like(indptr)
    return [data[:end], indices[:end], indptr]


def _rows_taken(csr: list[NDArray[Any]], rows: NDArray[np.int64]) -> Csr:
    """Take rows in a new order, one array after the other, so that no two matrices are there at once."""
    indptr = csr.pop()
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.diff(indptr)[rows])])
    indices = _taken(csr.pop(), indptr, rows, starts)
    return _taken(csr.pop(), indptr, rows, starts), indices, starts


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


def row_maxima(csr: Csr) -> NDArray[np.float64]:
    """Return (rows,) largest values; 0 where none is larger."""
    return np.asarray(_row_maxima(csr[0], csr[2]))


def column_sums(csr: Csr, n_columns: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return (columns,) sums and numbers of nonzero values."""
    sums, stored = _column_sums(csr[0], csr[1], n_columns)
    return np.asarray(sums), np.asarray(stored)
