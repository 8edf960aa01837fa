"""Compiled CSR passes against SciPy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from stpatch.slides.formats.counts import csr_of
from stpatch.slides.matrix import (
    column_sums,
    filter_in_place,
    is_canonical,
    relabel,
    row_facts,
    row_sums,
)


@st.composite
def matrices(draw: st.DrawFn) -> sparse.csr_matrix:
    """CSR with unsorted rows, explicit zeros, empty rows and entries that are given twice."""
    n_rows, n_columns = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    entries = st.tuples(st.integers(0, n_columns - 1), st.integers(0, 5))
    rows = draw(st.lists(st.lists(entries, max_size=9), min_size=n_rows, max_size=n_rows))
    dtype = draw(st.sampled_from([np.uint16, np.int32, np.int64, np.float32]))
    numbers = draw(st.sampled_from([np.int32, np.uint16]))
    indices = np.array([column for row in rows for column, _ in row], numbers)
    data = np.array([value for row in rows for _, value in row], dtype)
    indptr = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    return csr_of(data, indices, indptr, (n_rows, n_columns))


def dense(csr: tuple[np.ndarray, np.ndarray, np.ndarray], n_columns: int) -> np.ndarray:
    return sparse.csr_matrix(csr, shape=(len(csr[2]) - 1, n_columns)).toarray()


@given(counts=matrices(), data=st.data())
def test_relabel_permutes_merges_and_drops(counts: sparse.csr_matrix, data: st.DataObject) -> None:
    n_rows, n_columns = counts.shape
    rows = np.array(data.draw(st.lists(st.integers(0, n_rows - 1), max_size=8)), np.int64)
    size = data.draw(st.integers(1, n_columns))
    columns = np.array(data.draw(st.lists(st.integers(-1, size - 1), min_size=n_columns, max_size=n_columns)), np.int32)
    before = counts.copy()
    csr = relabel(counts, rows=rows, columns=columns, dtype=np.dtype(np.uint32))

    target = np.zeros((n_columns, size), np.int64)
    on = columns >= 0
    target[np.flatnonzero(on), columns[on]] = 1
    expected = counts.toarray()[rows].reshape(len(rows), n_columns) @ target
    np.testing.assert_array_equal(dense(csr, size), expected)
    values, indices, indptr = csr
    assert values.dtype == np.uint32
    assert indices.dtype == np.uint16
    assert (values > 0).all()
    for start, stop in pairwise(indptr):
        assert (np.diff(indices[start:stop]) > 0).all()
    np.testing.assert_array_equal(before.data, counts.data)
    np.testing.assert_array_equal(before.indices, counts.indices)


@given(counts=matrices(), data=st.data())
def test_relabel_in_the_matrix_itself_gives_the_same(counts: sparse.csr_matrix, data: st.DataObject) -> None:
    n_rows, n_columns = counts.shape
    rows = np.array(data.draw(st.permutations(range(n_rows)) | st.just(range(n_rows))), np.int64)
    columns = np.array(data.draw(st.lists(st.integers(-1, 3), min_size=n_columns, max_size=n_columns)), np.int32)
    dtype = np.dtype(data.draw(st.sampled_from([counts.dtype, np.dtype(np.uint32)])))
    expected = relabel(counts, rows=rows, columns=columns, dtype=dtype)
    memory, reusable = counts.data, dtype == counts.dtype and counts.indices.dtype == np.uint16
    csr = relabel(counts, rows=rows, columns=columns, dtype=dtype, consume=True)
    for array, same in zip(csr, expected, strict=True):
        assert array.dtype == same.dtype
        np.testing.assert_array_equal(array, same)
    in_order = bool((rows == np.arange(n_rows)).all())
    assert np.shares_memory(csr[0], memory) == (reusable and in_order and len(csr[0]) > 0)
    assert counts.nnz == 0


@given(counts=matrices(), data=st.data())
def test_filter_in_place_keeps_rows_and_columns(counts: sparse.csr_matrix, data: st.DataObject) -> None:
    n_rows, n_columns = counts.shape
    keep_rows = np.array(data.draw(st.lists(st.booleans(), min_size=n_rows, max_size=n_rows)))
    keep_columns = np.array(data.draw(st.lists(st.booleans(), min_size=n_columns, max_size=n_columns)))
    expected = counts.toarray()[keep_rows][:, keep_columns]
    columns = np.where(keep_columns, np.cumsum(keep_columns) - 1, -1).astype(np.int32)
    csr = (counts.data.copy(), counts.indices.astype(np.int32), counts.indptr.astype(np.int64))
    result = filter_in_place(csr, keep_rows=keep_rows, columns=columns)
    np.testing.assert_array_equal(dense(result, max(int(keep_columns.sum()), 1))[:, : keep_columns.sum()], expected)
    assert len(result[0]) == len(result[1]) == result[2][-1]
    assert all(np.shares_memory(new, old) for new, old in zip(result, csr, strict=True) if len(new))


@given(counts=matrices())
def test_sums(counts: sparse.csr_matrix) -> None:
    csr = (counts.data, counts.indices, counts.indptr)
    weights = np.arange(counts.shape[1], dtype=np.float64)
    np.testing.assert_allclose(row_sums(csr, weights), counts.toarray().astype(np.float64) @ weights)
    sums, nonzero = column_sums(csr, counts.shape[1])
    np.testing.assert_allclose(sums, counts.toarray().astype(np.float64).sum(axis=0))
    np.testing.assert_array_equal(nonzero, np.bincount(counts.indices[counts.data != 0], minlength=counts.shape[1]))
    totals, maxima = row_facts(csr)
    np.testing.assert_array_equal(totals, counts.toarray().sum(axis=1))
    assert maxima.tolist() == [max([0, *counts.data[a:b]]) for a, b in pairwise(counts.indptr)]
    assert is_canonical(csr) == all((np.diff(counts.indices[a:b].astype(int)) > 0).all() for a, b in pairwise(csr[2]))
