"""Dense count tables, streamed straight to CSR.

CSV, TSV or blank-separated; plain or gzip; a header that may be one field short, as R writes it; a UTF-8 byte order
mark and Windows line ends are fine. Ids stay text, digit for digit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from stpatch.errors import InputError
from stpatch.kernels import digits
from stpatch.slides.formats.counts import csr_of, dtype_for
from stpatch.slides.formats.names import listed
from stpatch.slides.formats.text.lines import BLOCK, Head, line_blocks, read_head, refuse_ragged

_WHOLE = re.compile(r"\d+(\.0*)?")

_FAULTS = {
    digits.TEXT: ("a count is not a number", "whole numbers"),
    digits.EMPTY: ("a count is missing", "a whole number in every cell"),
    digits.NEGATIVE: ("a count is negative", "whole numbers from 0"),
    digits.FRACTION: ("a count is fractional", "whole numbers: raw counts"),
    digits.LARGE: ("a count is too large", f"at most {digits.LARGEST}"),
}


@dataclass(frozen=True, kw_only=True)
class DenseTable:
    """A dense table of counts.

    Attributes
    ----------
    ids
        (rows, ids) text, one column an id column, named as in the header ("" for one without a name).
    names
        (columns,) names of the count columns, as in the header.
    counts
        CSR (rows, columns), no stored zeros; uint16, or uint32 where a count needs it; float32 for values that are
        normalized.
    """

    ids: pd.DataFrame
    names: NDArray[np.object_]
    counts: sparse.csr_matrix

    @property
    def row_ids(self) -> NDArray[np.object_]:
        """(rows,) the first id column."""
        return self.ids.iloc[:, 0].to_numpy(object)


def read_dense(
    path: Path,
    *,
    delimiter: str | None = None,
    id_columns: int | Sequence[str] = 1,
    skip: Sequence[str] = (),
    normalized: bool = False,
) -> DenseTable:
    """Read a dense table of counts in blocks; in memory is the sparse result, never the table.

    Parameters
    ----------
    path
        The table; its first line is the header.
    delimiter
        None: found from the first two lines; ``" "`` means runs of blanks.
    id_columns
        How many columns at the left are ids, or the names of the id columns.
    skip
        Names of columns that are neither ids nor counts; those that are not there do not matter.
    normalized
        Values may be fractional; they become float32.

    Raises
    ------
    InputError
        A cell that is no count (text, empty, NaN, negative, fractional), a row of another length, no row at all, a
        column that is missing or has no name, no header: with file, row (the line of the file) and column.
    """
    head = read_head(path, delimiter=delimiter)
    kinds = _kinds(head, id_columns, set(skip))
    columns = np.flatnonzero(kinds >= 0)
    names = np.array([head.names[i] for i in columns], dtype=object)
    _check_names(head, names, columns)
    ids: list[list[str]] = [[] for _ in range(int((kinds <= digits.ID).sum()))]
    parts = list(_parts(head, kinds, ids, normalized=normalized))
    if not parts or not len(ids[0] if ids else parts[0][2]):
        raise _no_rows(path)
    return DenseTable(
        ids=_id_frame(head, kinds, ids), names=names, counts=_joined(parts, len(columns), normalized=normalized)
    )


def read_ids(path: Path, *, delimiter: str | None = None, id_columns: int | Sequence[str] = 1) -> pd.DataFrame:
    """Read the id columns of a dense table as `read_dense` does, whatever the cells of its other columns hold."""
    head = read_head(path, delimiter=delimiter)
    kinds = _kinds(head, id_columns, set())
    kinds[kinds >= 0] = digits.SKIPPED
    ids: list[list[str]] = [[] for _ in range(int((kinds <= digits.ID).sum()))]
    for _ in _parts(head, kinds, ids, normalized=False):
        pass
    if not ids or not ids[0]:
        raise _no_rows(path)
    return _id_frame(head, kinds, ids)


def _no_rows(path: Path) -> InputError:
    return InputError("the table has a header but no rows", where=path, hint="fetch the file again, or repair it")


def _id_frame(head: Head, kinds: NDArray[np.int32], ids: list[list[str]]) -> pd.DataFrame:
    """Return (rows, ids) text of the id columns, in the order in which they were asked for."""
    order = np.argsort(-kinds[kinds <= digits.ID])
    frame = pd.DataFrame({i: np.array(column, dtype=object) for i, column in enumerate(ids)}, dtype=object)
    frame.columns = pd.Index([head.names[i] for i in np.flatnonzero(kinds <= digits.ID)[order]], dtype=object)
    return frame


def transposed(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return the CSR matrix of the other axis, for tables with genes in rows."""
    return counts.T.tocsr()


def _kinds(head: Head, id_columns: int | Sequence[str], skip: set[str]) -> NDArray[np.int32]:
    n_fields = len(head.names)
    if len(head.first) not in (0, n_fields):
        refuse_ragged(head, row=2, fields=len(head.first))
    kinds = np.zeros(n_fields, np.int32)
    if isinstance(id_columns, int):
        places = list(range(min(id_columns, n_fields)))
    else:
        places = [column_place(head, name) for name in id_columns]
    for number, place in enumerate(places):
        kinds[place] = digits.ID - number
    kinds[[i for i, name in enumerate(head.names) if name in skip and kinds[i] == 0]] = digits.SKIPPED
    kinds[kinds == 0] = np.arange((kinds == 0).sum())
    if not (kinds >= 0).any():
        raise InputError(
            "the table has no column of counts",
            where=head.path,
            found=listed(head.names),
            expected="ids at the left, then one column of counts a gene or spot",
        )
    return kinds


def column_place(head: Head, name: str) -> int:
    """Return the number of the column of this name; missing or given twice is an error."""
    places = [i for i, other in enumerate(head.names) if other == name]
    if len(places) != 1:
        what = "the table has no column" if not places else "the table has several columns"
        raise InputError(
            f"{what} {name!r}", where=head.path, found=f"columns {listed(head.names)}", expected="the column once"
        )
    return places[0]


def _check_names(head: Head, names: NDArray[np.object_], columns: NDArray[np.int64]) -> None:
    if len(names) > 1 and all(_WHOLE.fullmatch(name) for name in names) and len(set(names)) < len(names):
        raise InputError(
            "the first line holds numbers that repeat: the table has no header",
            where=f"{head.path} row 1",
            found=listed(names),
            expected="the names of the columns",
            hint="add a header line",
        )
    empty = [int(place) for place, name in zip(columns, names, strict=True) if not name]
    if empty:
        raise InputError(
            "a column of counts has no name",
            where=f"{head.path} row 1, column {empty[0] + 1}",
            found=f"{len(empty)} such column{'s' if len(empty) > 1 else ''}",
            expected="one name a column; only the column of ids may be without",
        )


def _parts(
    head: Head, kinds: NDArray[np.int32], ids: list[list[str]], *, normalized: bool
) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]]:
    """Yield values, columns and row lengths of each block; ids are appended to `ids`."""
    data = np.empty(0, np.float64 if normalized else np.uint32)
    indices = np.empty(0, np.int32)
    narrow = np.uint16 if len(kinds) <= 2**16 else np.int32
    line = 0
    for number, lines in enumerate(line_blocks(head.path)):
        block = lines
        if number == 0:
            block, line = _after_header(block, n_lines=head.n_comments + 1)
        if not block:
            continue
        buffer = np.frombuffer(block, np.uint8)
        if len(data) < len(block) // 2 + 1:
            data = np.empty(max(len(block), BLOCK) // 2 + 1, data.dtype)
            indices = np.empty(len(data), np.int32)
        n_lines = block.count(b"\n")
        row_ends, spans = np.empty(n_lines, np.int64), np.empty((n_lines, len(ids), 2), np.int64)
        rows, stored, error, at, field, start, stop = digits.parse_block(
            buffer, ord(head.delimiter), kinds, normalized, data, indices, row_ends, spans
        )
        if error == digits.RAGGED:
            refuse_ragged(head, row=line + at + 1, fields=field)
        if error != digits.FINE:
            _refuse(head, error, line + at + 1, field, block[start:stop])
        for column, texts in enumerate(ids):
            texts += _texts(block, spans[:rows, column].tolist(), head, line)
        line += n_lines
        largest = data[:stored].max() if stored else 0
        dtype = np.float32 if normalized else dtype_for(int(largest))
        lengths = np.diff(row_ends[:rows], prepend=0)
        yield data[:stored].astype(dtype), indices[:stored].astype(narrow), lengths


def _after_header(block: bytes, *, n_lines: int) -> tuple[bytes, int]:
    """Return what follows the first lines (comments and header) that are not empty, and how many went before."""
    start, line = 0, 0
    while start < len(block):
        end = block.index(b"\n", start) + 1
        line += 1
        n_lines -= bool(block[start:end].strip())
        if not n_lines:
            return block[end:], line
        start = end
    return b"", line


def _texts(block: bytes, spans: list[list[int]], head: Head, line: int) -> list[str]:
    try:
        return [block[start:stop].decode() for start, stop in spans]
    except UnicodeDecodeError as error:
        raise InputError(
            "an id is not UTF-8", where=f"{head.path} after row {line}", found=error, hint="save the table as UTF-8"
        ) from error


def _joined(
    parts: list[tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]], n_columns: int, *, normalized: bool
) -> sparse.csr_matrix:
    lengths = np.concatenate([part[2] for part in parts])
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    dtype = np.result_type(*(part[0].dtype for part in parts))
    data, indices = np.empty(indptr[-1], np.float32 if normalized else dtype), np.empty(indptr[-1], np.int32)
    start = 0
    for values, columns, _ in parts:
        data[start : start + len(values)] = values
        indices[start : start + len(values)] = columns
        start += len(values)
    return csr_of(data, indices, indptr, (len(lengths), n_columns))


def _refuse(head: Head, code: int, row: int, field: int, text: bytes) -> None:
    what, expected = _FAULTS[code]
    normalized = "give raw counts; for normalized values set ingest.values: normalized"
    raise InputError(
        what,
        where=f"{head.path} row {row}, column {field + 1} ({head.names[field]})",
        found=repr(text[:40].decode(errors="replace")),
        expected=expected,
        hint=normalized if code in (digits.FRACTION, digits.NEGATIVE) else None,
    )
