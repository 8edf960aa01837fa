"""Loops over CSR arrays, (rows, columns): relabel, merge, filter and sum up.

`stpatch.slides.matrix` allocates what they fill and checks what they trust: row pointers ascend, and every column
number has an entry in `columns`. Output may be the input's own memory: each loop writes at or behind the place that
it reads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.kernels.registry import kernel


def _matrices(counts: np.dtype[Any]) -> list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """Return raw matrices as AnnData files give them, and as most readers do."""
    data = np.empty(0, counts)
    return [
        (data, np.empty(0, np.uint16), np.empty(0, np.int64)),
        (data, np.empty(0, np.int32), np.empty(0, np.int32)),
    ]


def _canonical(counts: np.dtype[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return a canonical matrix: narrow gene numbers, long row pointers."""
    return _matrices(counts)[0]


def _relabel_examples(counts: np.dtype[Any]) -> list[tuple[Any, ...]]:
    rows, columns = np.empty(0, np.int64), np.empty(0, np.int32)
    return [(*raw, rows, columns, *_canonical(counts)) for raw in _matrices(counts)]


@kernel(stage="ingest", examples=_relabel_examples)
def relabel(
    data: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[Any],
    rows: NDArray[np.int64],
    columns: NDArray[np.int32],
    out_data: NDArray[Any],
    out_indices: NDArray[Any],
    out_indptr: NDArray[np.int64],
) -> int:
    """Write rows in a new order with new column numbers; return how many values there are now.

    `rows` are the rows of the result, `columns` (columns,) the new number of each column, negative to drop it. Most
    rows stay sorted and lose nothing: they are copied in one pass. The first value that breaks this sends the row to
    `merge_row`, which writes it anew. The result never passes what was read, so that it may lie in the same memory as
    long as rows keep their places.
    """
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
                merge_row(data[start:stop], indices[start:stop], columns, out_data[end:], out_indices[end:])
            )
        out_indptr[i + 1] = end
    return int(end)


@kernel()
def merge_row(
    data: NDArray[Any],
    indices: NDArray[Any],
    columns: NDArray[np.int32],
    out_data: NDArray[Any],
    out_indices: NDArray[Any],
) -> int:
    """Write one row: drop, sort and add up; return its number of values.

    Values are written first as they come. Where columns then ascend strictly, that is all; else they are sorted by a
    stable sort, and columns that stand together are summed, in the order in which they were stored.
    """
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


def _is_canonical_examples(counts: np.dtype[Any]) -> list[tuple[Any, ...]]:
    return [raw[1:] for raw in _matrices(counts)]


@kernel(stage="ingest", examples=_is_canonical_examples)
def is_canonical(indices: NDArray[Any], indptr: NDArray[Any]) -> bool:
    """Whether column numbers ascend strictly in every row."""
    for row in range(len(indptr) - 1):
        for j in range(np.uintp(indptr[row]) + np.uintp(1), np.uintp(indptr[row + 1])):
            if indices[j - np.uintp(1)] >= indices[j]:
                return False
    return True


def _filter_in_place_examples(counts: np.dtype[Any]) -> list[tuple[Any, ...]]:
    return [(*_canonical(counts), np.empty(0, np.bool_), np.empty(0, np.int32))]


@kernel(stage="ingest", examples=_filter_in_place_examples)
def filter_in_place(
    data: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[np.int64],
    keep_rows: NDArray[np.bool_],
    columns: NDArray[np.int32],
) -> tuple[int, int]:
    """Drop rows and columns inside the arrays; return the numbers of rows and values that are left.

    A row's pointers are read before the pointer of the row that takes its place is written.
    """
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


def _row_sums_examples(counts: np.dtype[Any]) -> list[tuple[Any, ...]]:
    return [(*_canonical(counts), np.empty(0))]


@kernel(stage="ingest", examples=_row_sums_examples)
def row_sums(
    data: NDArray[Any], indices: NDArray[Any], indptr: NDArray[Any], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return (rows,) sums of the values times their column's weight."""
    sums = np.zeros(len(indptr) - 1)
    for row in range(len(sums)):
        total = 0.0
        for j in range(indptr[row], indptr[row + 1]):
            total += data[j] * weights[indices[j]]
        sums[row] = total
    return sums


def _row_facts_examples(counts: np.dtype[Any]) -> list[tuple[Any, ...]]:
    return [(raw[0], raw[2], 0.0 if counts.kind == "f" else 0) for raw in _matrices(counts)]


@kernel(stage="ingest", examples=_row_facts_examples)
def row_facts(
    data: NDArray[Any], indptr: NDArray[Any], zero: np.int64 | np.float64
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (rows,) sums and largest values; `zero` is of the type to sum in."""
    sums, maxima = np.zeros(len(indptr) - 1), np.zeros(len(indptr) - 1)
    for row in range(len(sums)):
        total = largest = zero  # an integer where the values are: such a sum is not tied to its order
        for value in data[indptr[row] : indptr[row + 1]]:
            total += value
            largest = max(largest, zero + value)
        sums[row], maxima[row] = total, largest
    return sums, maxima


def _column_sums_examples(counts: np.dtype[Any]) -> list[tuple[Any, ...]]:
    return [(*raw[:2], 1) for raw in _matrices(counts)]


@kernel(stage="ingest", examples=_column_sums_examples)
def column_sums(
    data: NDArray[Any], indices: NDArray[Any], n_columns: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return (columns,) sums and numbers of nonzero values."""
    sums = np.zeros(n_columns)
    stored = np.zeros(n_columns, np.int64)
    for j in range(len(data)):
        sums[indices[j]] += data[j]
        stored[indices[j]] += data[j] != 0
    return sums, stored
