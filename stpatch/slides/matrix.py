"""Passes over CSR arrays: relabel, merge and filter, in place where the input may be consumed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stpatch.kernels import matrix as kernels
from stpatch.slides.slide import gene_number_dtype

Csr = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
"""Values, column numbers (uint16 or int32) and row pointers (int64; int32 in what a reader returns)."""


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
    end = int(kernels.relabel(counts.data, counts.indices, counts.indptr, rows, columns, data, indices, indptr))
    if consume:
        counts.data, counts.indices = np.empty(0, counts.data.dtype), np.empty(0, counts.indices.dtype)
        counts.indptr = np.zeros(counts.shape[0] + 1, np.int64)
    return data[:end], indices[:end], indptr


def _is_reusable(counts: sparse.csr_matrix, dtype: np.dtype[Any], numbers: np.dtype[Any]) -> bool:
    arrays = (counts.data, counts.indices)
    return [array.dtype for array in arrays] == [dtype, numbers] and all(array.flags.writeable for array in arrays)


def is_canonical(csr: Csr) -> bool:
    """Whether column numbers ascend strictly in every row."""
    return bool(kernels.is_canonical(csr[1], csr[2]))


def filter_in_place(csr: Csr, *, keep_rows: NDArray[np.bool_], columns: NDArray[np.int32]) -> Csr:
    """Drop rows and columns without a copy; the input is consumed.

    `columns` gives each column's new number, ascending, -1 to drop it.
    """
    data, indices, indptr = csr
    n_rows, end = kernels.filter_in_place(data, indices, indptr, keep_rows, columns)
    return data[:end], indices[:end], indptr[: n_rows + 1]


def row_sums(csr: Csr, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (rows,) sums of the values times their column's weight."""
    return np.asarray(kernels.row_sums(*csr, weights))


def row_facts(csr: Csr) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (rows,) sums, and (rows,) largest values, 0 where none is larger."""
    zero: np.int64 | np.float64 = np.int64(0) if csr[0].dtype.kind in "iu" else np.float64(0)
    sums, maxima = kernels.row_facts(csr[0], csr[2], zero)
    return np.asarray(sums), np.asarray(maxima)


def column_sums(csr: Csr, n_columns: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return (columns,) sums and numbers of nonzero values."""
    sums, stored = kernels.column_sums(csr[0], csr[1], n_columns)
    return np.asarray(sums), np.asarray(stored)
