"""Whole numbers in, checked block by block: the matrix of a reader is built with no more than one copy of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stpatch.errors import InputError

BLOCK = 1 << 22
"""Values of a dense matrix that are read and checked together."""
INT32 = np.dtype(np.int32)
RUN = 1 << 19
"""Values of one array that are read and checked together: few enough to stay in a processor's cache between the two."""


class FractionalError(InputError):
    """A count is fractional: the values are no raw counts, and another matrix of the file may be."""


def as_counts(block: NDArray[Any], *, where: object, offset: int = 0) -> NDArray[Any]:
    """Return the values as unsigned integers of the narrowest of 16, 32 and 64 bits.

    Parameters
    ----------
    block
        (n,) numbers of any type.
    where
        File and key, for messages.
    offset
        Number of the block's first value in the file.

    Raises
    ------
    InputError
        A value is negative, fractional or no number.
    """
    if block.dtype.kind not in "iufb":
        raise InputError("the counts are not numbers", where=where, found=block.dtype, expected="whole numbers")
    if not len(block):
        return np.empty(0, np.uint16)
    if block.dtype.kind == "f":
        _check(np.isfinite(block), block, "a count is not a finite number", where, offset)
        _check(block == np.rint(block), block, "a count is fractional", where, offset, error=FractionalError)
    if block.dtype.kind in "if":
        _check(block >= 0, block, "a count is negative", where, offset)
    largest = block.max()
    if largest >= 2**63:
        raise InputError("a count is too large", where=where, found=largest, expected="less than 2**63")
    return block.astype(dtype_for(int(largest)), copy=False)


def _check(
    good: NDArray[np.bool_],
    block: NDArray[Any],
    what: str,
    where: object,
    offset: int,
    error: type[InputError] = InputError,
) -> None:
    if not good.all():
        first = int(np.argmin(good))
        raise error(
            what,
            where=f"{where}, value {offset + first}",
            found=f"{block[first]!s} ({int((~good).sum())} such in this block)",
            expected="numbers from 0" if what.startswith(("a value", "a normalized")) else "whole numbers from 0",
            hint="give raw counts" if error is FractionalError else None,
        )


def as_floats(block: NDArray[Any], *, where: object, offset: int = 0) -> NDArray[np.float32]:
    """Return normalized values as float32; a value that is negative or no number raises `InputError`."""
    if block.dtype.kind not in "iufb":
        raise InputError("the values are not numbers", where=where, found=block.dtype, expected="an array of numbers")
    _check(np.isfinite(block), block, "a value is not a finite number", where, offset)
    _check(block >= 0, block, "a normalized value is negative", where, offset)
    return block.astype(np.float32, copy=False)


def dtype_for(largest: int) -> type[np.uint16] | type[np.uint32] | type[np.int64]:
    """Return the narrowest dtype that a raw slide may have for counts up to `largest`."""
    return np.uint16 if largest < 2**16 else np.uint32 if largest < 2**32 else np.int64


class Values:
    """(n,) values filled block by block, as narrow as they allow."""

    def __init__(self, size: int, *, normalized: bool = False) -> None:
        self._normalized = normalized
        self.array: NDArray[Any] = np.empty(size, np.float32 if normalized else np.uint16)

    def put(self, place: Any, block: NDArray[Any], *, where: object, offset: int = 0) -> None:
        """Check a block and store it at `place` (a slice or positions)."""
        checked = block  # 16 bits without a sign hold whole numbers from 0 and nothing else
        if self._normalized:
            checked = as_floats(block, where=where, offset=offset)
        elif block.dtype != np.uint16:
            checked = as_counts(block, where=where, offset=offset)
        if checked.dtype.itemsize > self.array.dtype.itemsize:
            self.array = self.array.astype(checked.dtype)
        self.array[place] = checked


def read_values(values: Any, *, where: object, normalized: bool = False) -> NDArray[Any]:
    """Read a one-dimensional array of counts (or normalized values, float32) in blocks, as narrow as they allow."""
    size = _size(values, where)
    buffer = Values(size, normalized=normalized)
    for start, block in _blocks(values, size):
        buffer.put(slice(start, start + len(block)), block, where=where, offset=start)
    return buffer.array


def without_fractions(
    values: NDArray[Any], columns: NDArray[Any], others: NDArray[np.bool_]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return values in which fractional ones of `others` are 0, and (columns,) which columns had some.

    Parameters
    ----------
    values, columns
        (n,) stored values of a matrix and their columns.
    others
        (columns,) which are no genes: proteins beside genes may be scaled, and must not stop the genes.
    """
    if values.dtype.kind != "f":
        return values, np.zeros(len(others), bool)
    fractional = others[columns] & ~((values >= 0) & (values == np.rint(values)))
    left_out = np.zeros(len(others), bool)
    left_out[columns[fractional]] = True
    return np.where(fractional, values.dtype.type(0), values), left_out


def fraction_notes(left_out: NDArray[np.bool_], types: Any) -> tuple[str, ...]:
    """Return the note on (columns,) columns that `without_fractions` left out, of their feature types."""
    if not left_out.any():
        return ()
    kinds = ", ".join(sorted({str(text) for text in np.asarray(types, dtype=object)[left_out]}))
    return (
        f"{int(left_out.sum())} features of type {kinds} hold values that are not whole numbers: these are left out",
    )


def read_indices(
    values: Any, *, where: object, limit: int, dtype: np.dtype[Any] = INT32
) -> NDArray[np.uint16] | NDArray[np.int32]:
    """Read a one-dimensional array of indices below `limit` in blocks as `dtype` (R writes whole floats)."""
    size = _size(values, where)
    indices = np.empty(size, dtype)
    for start, block in _blocks(values, size):
        if not _all_below(block, limit):
            bad = np.flatnonzero(~((block >= 0) & (block < limit)) | (block != np.rint(block)))
            raise InputError(
                "an index points outside the matrix",
                where=f"{where}, value {start + bad[0]}",
                found=block[bad[0]],
                expected=f"whole numbers from 0 to {limit - 1}",
            )
        indices[start : start + len(block)] = block
    return indices


def _all_below(block: NDArray[Any], limit: int) -> bool:
    """Whether all values are whole numbers from 0 to `limit` - 1."""
    if block.dtype.kind == "i" and block.dtype.isnative:  # a negative number is a large one without its sign
        block = block.view(f"u{block.dtype.itemsize}")
    if block.dtype.kind == "u":
        return bool(block.max(initial=0) < limit) or not len(block)
    return bool(((block >= 0) & (block < limit) & (block == np.rint(block))).all())


def _blocks(values: Any, size: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the first position and the values of each block; those of an HDF5 dataset share their memory.

    Blocks end where chunks end, so that no chunk is decoded twice.
    """
    chunk = (getattr(values, "chunks", None) or (1,))[0]
    step = -(-RUN // chunk) * chunk
    buffer = np.empty(min(step, size), values.dtype.newbyteorder("=")) if hasattr(values, "read_direct") else None
    for start in range(0, size, step):
        stop = min(size, start + step)
        if buffer is None:
            yield start, np.asarray(values[start:stop])
        else:
            values.read_direct(buffer[: stop - start], np.s_[start:stop])
            yield start, buffer[: stop - start]


def read_pointers(values: Any, *, where: object, rows: int, stored: int) -> NDArray[np.int64]:
    """Read CSR row pointers: `rows` + 1 whole numbers that rise from 0 to `stored`."""
    size = _size(values, where)
    if size != rows + 1:
        raise InputError("indptr has the wrong length", where=where, found=size, expected=rows + 1)
    floats = np.asarray(values[:])
    pointers = floats.astype(np.int64)
    if (pointers != floats).any() or pointers[0] != 0 or pointers[-1] != stored or (np.diff(pointers) < 0).any():
        raise InputError(
            "indptr does not cut the matrix into rows",
            where=where,
            found=f"from {pointers[0]} to {pointers[-1]}",
            expected=f"whole numbers rising from 0 to {stored}",
            hint="the file is damaged: fetch it again",
        )
    return pointers


def _size(values: Any, where: object) -> int:
    if getattr(values, "ndim", None) != 1:
        raise InputError(
            "an array does not have one dimension",
            where=where,
            found=getattr(values, "shape", "a group"),
            hint="fetch the file again, or repair it",
        )
    return int(values.shape[0])


def csr_of(
    data: NDArray[Any], indices: NDArray[Any], indptr: NDArray[np.int64], shape: tuple[int, int]
) -> sparse.csr_matrix:
    """Return a CSR matrix of these arrays without a copy of data and indices (scipy would widen them)."""
    if len(data) < 2**31 - 1 and indices.dtype == np.int32:
        return sparse.csr_matrix((data, indices, indptr.astype(np.int32)), shape=shape, copy=False)
    matrix = sparse.csr_matrix(shape, dtype=data.dtype)
    vars(matrix).update(data=data, indices=indices, indptr=indptr)
    return matrix


def read_dense(
    rows: Callable[[int, int], NDArray[Any]], shape: tuple[int, int], *, where: object, normalized: bool = False
) -> sparse.csr_matrix:
    """Turn a dense matrix that may be larger than memory into CSR.

    Parameters
    ----------
    rows
        Returns rows start to stop, (stop - start, columns).
    """
    n_rows, n_columns = shape
    step = max(1, BLOCK // max(1, n_columns))
    values: list[NDArray[Any]] = []
    indices: list[NDArray[np.int32]] = []
    indptr: NDArray[np.int64] = np.zeros(n_rows + 1, np.int64)
    for start in range(0, n_rows, step):
        block = rows(start, min(n_rows, start + step))
        row, column = np.nonzero(block)  # NaN is not zero: it reaches the check
        stored = block[row, column]
        place = f"{where}, rows {start} to {start + len(block) - 1}"
        values.append(as_floats(stored, where=place) if normalized else as_counts(stored, where=place))
        indices.append(column.astype(np.int32))
        indptr[start + 1 : start + 1 + len(block)] = np.bincount(row, minlength=len(block))
    np.cumsum(indptr, out=indptr)
    joined: NDArray[np.int32] = np.concatenate(indices) if indices else np.empty(0, np.int32)
    indices.clear()
    data = np.concatenate(values) if values else np.empty(0, np.float32 if normalized else np.uint16)
    return csr_of(data, joined, indptr, shape)
