"""Delimited tables of spots, cells and molecules: columns of text, and their exact numbers.

CSV, TSV or blank-separated; plain or gzip, with or without a header. Ids stay text, digit for digit.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.errors import InputError
from stpatch.slides.formats.names import listed
from stpatch.slides.formats.text.lines import BLOCK, Head, byte_blocks, read_head, refuse_ragged


class _Stream(io.RawIOBase):
    """The text bytes of a file, unpacked, as pyarrow wants them."""

    def __init__(self, path: Path) -> None:
        self._blocks = byte_blocks(path)
        self._held = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not len(self._held):
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._held = memoryview(block)
        n = min(len(buffer), len(self._held))
        buffer[:n] = self._held[:n]
        self._held = self._held[n:]
        return n


def read_table(
    path: Path,
    *,
    delimiter: str | None = None,
    header: bool | Sequence[str] = True,
    required: Sequence[str] = (),
    numeric: Sequence[str] = (),
) -> pd.DataFrame:
    """Read a spot table; every column is text, digit for digit, but for those named numeric.

    Parameters
    ----------
    header
        Whether the first line is a header; or the columns' names, for a table without one.
    required
        Columns that must be there.
    numeric
        Columns (of those that are there) that become float64; a cell that is not a finite number is an error.

    Returns
    -------
    RangeIndex; columns named as in the header ("" for the one that R leaves unnamed), or by number without one.

    Raises
    ------
    InputError
        A missing column (the error lists what is there), a column given twice, rows of different length, a text cell
        in a numeric column: with file, row and column.
    """
    head = read_head(path, delimiter=delimiter)
    names: list[Any] = list(head.names) if header is True else list(range(len(head.header)))
    if not isinstance(header, bool):
        names = list(header)
        if len(names) != len(head.header):
            raise InputError(
                "the table has another number of columns",
                where=path,
                found=len(head.header),
                expected=f"{len(names)}: {listed(names)}",
            )
    twice = sorted({str(name) for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            "a column is given twice", where=path, found=listed(twice), hint="rename or take out one of them"
        )
    for name in required:
        if name not in names:
            raise InputError(
                f"the table has no column {name!r}",
                where=path,
                found=f"columns {listed(names)}",
                hint="name the column so, or give the table that has it",
            )
    skipped = head.n_comments + (1 if header is True else 0)
    frame = _blank_frame(head, skipped) if head.delimiter == " " else _arrow_frame(head, len(names), skipped)
    if frame.shape[1] != len(names):
        refuse_ragged(head, row=1 + skipped, fields=frame.shape[1])
    frame.columns = pd.Index(names, dtype=object)
    if header is True and len(frame) and _is_type_row(frame.iloc[0].tolist()):
        frame = frame.iloc[1:].reset_index(drop=True)
    for name in numeric:
        if name in names:
            frame[name] = numbers(frame[name], where=path, first_row=1 + skipped)
    return frame


def _is_type_row(cells: Sequence[str]) -> bool:
    """Whether a row says what its columns hold: ``TYPE,numeric,group``, as the Single Cell Portal has it."""
    words = {str(cell).strip().lower() for cell in cells[1:]}
    return str(cells[0]).strip() == "TYPE" and bool(words) and words <= {"numeric", "group"}


def _arrow_frame(head: Head, n_columns: int, skipped: int) -> pd.DataFrame:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    names = [str(i) for i in range(n_columns)]
    try:
        table = arrow_csv.read_csv(
            pa.PythonFile(_Stream(head.path), mode="r"),
            read_options=arrow_csv.ReadOptions(column_names=names, skip_rows=skipped, block_size=BLOCK),
            parse_options=arrow_csv.ParseOptions(delimiter=head.delimiter),
            convert_options=arrow_csv.ConvertOptions(
                column_types={name: pa.string() for name in names}, strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        raise InputError(
            "the table cannot be read",
            where=head.path,
            found=" ".join(str(error).split())[:300],
            hint="fetch the file again, or repair it",
        ) from error
    return pd.DataFrame({name: table[name].to_numpy(zero_copy_only=False) for name in names}, dtype=object)


def _blank_frame(head: Head, skipped: int) -> pd.DataFrame:
    stream = io.BufferedReader(_Stream(head.path))
    try:
        frame = pd.read_csv(  # an empty cell of a blank-separated table is one that is not there
            stream,
            sep=r"\s+",
            header=None,
            skiprows=skipped,
            dtype=str,
            keep_default_na=False,
            na_values=[""],
            encoding="utf-8-sig",
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        if isinstance(error, pd.errors.EmptyDataError):
            return pd.DataFrame(columns=range(len(head.names)))
        raise InputError(
            "the table cannot be read",
            where=head.path,
            found=" ".join(str(error).split())[:300],
            hint="fetch the file again, or repair it",
        ) from error
    short = np.flatnonzero(frame.isna().any(axis=1))
    if len(short):
        refuse_ragged(head, row=int(short[0]) + 1 + skipped, fields=int(frame.iloc[short[0]].notna().sum()))
    return frame.astype(object)


def numbers(
    values: pd.Series[Any] | NDArray[Any], *, where: object, first_row: int = 2, missing: bool = False
) -> NDArray[np.float64]:
    """Return text as exact float64.

    Parameters
    ----------
    values
        (n,) text; the name of a series is the column's.
    first_row
        The line of the file that holds the first value, for messages.
    missing
        Whether empty cells, NA and NaN are fine (they become NaN).

    Raises
    ------
    InputError
        A cell is not a finite number.
    """
    import pyarrow as pa
    from pyarrow import compute

    name = getattr(values, "name", None)
    texts = compute.utf8_trim_whitespace(pa.array(np.asarray(values, dtype=object), pa.string()))
    try:
        floats = np.asarray(compute.cast(texts, pa.float64()).to_numpy(zero_copy_only=False), np.float64)
    except pa.ArrowInvalid:
        floats = np.array([_float(text) for text in texts.to_pylist()], np.float64)
    bad = ~np.isfinite(floats)
    if missing and bad.any():
        blank = {"", "na", "nan", "null", "none"}
        bad &= np.array([text.lower() not in blank for text in texts.to_pylist()])
    if bad.any():
        first = int(np.argmax(bad))
        raise InputError(
            "a cell is not a finite number",
            where=f"{where} row {first + first_row}" + (f", column {name}" if name not in (None, "") else ""),
            found=f"{texts[first].as_py()!r} ({int(bad.sum())} such cell{'s' if bad.sum() > 1 else ''})",
            expected="a number",
        )
    return floats


def _float(text: str) -> float:
    """Return a number, NaN for what is none (`pandas.to_numeric` crashes on exponents of many digits)."""
    try:
        return float(text) if "_" not in text else np.nan
    except ValueError:
        return np.nan
