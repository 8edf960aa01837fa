"""Tables of molecules at the edge: CSV, TSV (gzipped or not) and parquet, read in blocks of named columns."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import InputError, StpatchError
from stpatch.slides.formats.hdf5.files import faults
from stpatch.slides.formats.parquet import parquet_parts
from stpatch.slides.formats.text.lines import arrow_stream, open_text, split_line

Kind = Literal["text", "float", "integer", "flag"]
CSV_BLOCK = 1 << 22
"""Bytes of text that are parsed together."""
PARQUET_ROWS = 1 << 18
"""Rows of parquet that are decoded together."""
HEADER_LINES = 1000
"""A table whose header does not come within so many lines has none."""


@dataclass(frozen=True, kw_only=True)
class MoleculeTable:
    """A molecule table's header.

    Attributes
    ----------
    columns
        Column names in the file's order.
    is_parquet
        Else text.
    delimiter
        Of text.
    comments
        Lines before the header that start with ``#``, without it.
    n_rows
        Number of molecules where the header tells (parquet).
    has_header
        Of text: whether the first line holds the columns' names.
    """

    path: Path
    columns: tuple[str, ...]
    is_parquet: bool = False
    delimiter: str = ","
    comments: tuple[str, ...] = ()
    n_rows: int | None = None
    has_header: bool = True

    def first_of(self, *names: str) -> str | None:
        """Return the first of these names that is a column."""
        return next((name for name in names if name in self.columns), None)

    def need(self, *names: str) -> str:
        """Return the first of these names that is a column; none of them is an `InputError`."""
        column = self.first_of(*names)
        if column is None:
            raise InputError(
                "the molecule table misses a column",
                where=self.path,
                found=", ".join(self.columns[:20]),
                expected=" or ".join(names),
            )
        if self.columns.count(column) > 1:
            raise InputError(
                "a column is given twice", where=self.path, found=column, hint="rename or take out one of them"
            )
        return column


def open_molecules(path: Path) -> MoleculeTable:
    """Read a molecule table's header."""
    with parquet_parts(path)[0].open("rb") as file:
        magic = file.read(4)
    return _parquet_header(path) if magic == b"PAR1" else _text_header(path)


def molecule_blocks(
    table: MoleculeTable, kinds: Mapping[str, Kind], *, text: NDArray[np.uint8] | None = None, row: int = 0
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number of the first row, column name -> values) in blocks.

    Parameters
    ----------
    kinds
        Columns to read. ``text`` comes as an arrow dictionary array, ``float`` as float64 (finite), ``integer`` as
        int64, ``flag`` as bool.
    text, row
        Whole lines of a text table and the number of the first; None reads the file.

    Raises
    ------
    InputError
        The file is damaged or cut short, a value is missing or not of its kind.
    """
    blocks = _parquet_blocks(table, kinds) if table.is_parquet else _text_blocks(table, kinds, text)
    with _arrow_faults(table.path if text is None else f"{table.path}, in the block from row {row}"):
        for block in blocks:
            names = block.schema.names
            values = {
                name: _values(block.column(names.index(name)), kind, where=(table.path, name, row))
                for name, kind in kinds.items()
            }
            yield row, values
            row += block.num_rows


class GeneCodes:
    """Gene names to numbers: those known beforehand, then the others in order of first appearance over all blocks."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._code: dict[str, int] = {}
        for name in known:
            self._code.setdefault(name, len(self._code))

    @property
    def names(self) -> list[str]:
        """Names by number."""
        return list(self._code)

    def __len__(self) -> int:
        return len(self._code)

    def number(self, name: str) -> int:
        """Return a gene's number, a new one where it was not seen before."""
        return self._code.setdefault(name, len(self._code))

    def encode(self, column: Any, *, where: object) -> NDArray[np.int32]:
        """Return (n,) int32 numbers of a dictionary array's values."""
        names = column.dictionary.to_pylist()
        texts = [name.decode("utf-8") if isinstance(name, bytes) else str(name) for name in names]
        if any(not text.strip() for text in texts):
            raise InputError("a molecule has no gene", where=where, expected="a gene name in every row")
        table = np.array([self.number(text) for text in texts], dtype=np.int32)
        codes: NDArray[np.int32] = table[column.indices.to_numpy(zero_copy_only=False)]
        return codes


def _text_header(path: Path) -> MoleculeTable:
    comments: list[str] = []
    with faults(path), open_text(path) as file:
        for _ in range(HEADER_LINES):
            line = file.readline(1 << 20)
            if not line.startswith("#"):
                break
            comments.append(line[1:].strip())
    if not line.strip():
        raise InputError("the molecule table is empty", where=path, expected="a header line")
    delimiter = "\t" if "\t" in line else ","
    columns = split_line(line.rstrip("\r\n"), delimiter, where=path)
    return MoleculeTable(path=path, columns=columns, delimiter=delimiter, comments=tuple(comments))


def _parquet_header(path: Path) -> MoleculeTable:
    from pyarrow import parquet

    n_rows = 0
    with _arrow_faults(path):
        for part in parquet_parts(path):
            with parquet.ParquetFile(part) as file:
                columns = tuple(file.schema_arrow.names)
                n_rows += file.metadata.num_rows
    return MoleculeTable(path=path, columns=columns, is_parquet=True, n_rows=n_rows)


def _parquet_blocks(table: MoleculeTable, kinds: Mapping[str, Kind]) -> Iterator[Any]:
    from pyarrow import parquet

    texts = [name for name, kind in kinds.items() if kind == "text"]
    for part in parquet_parts(table.path):
        with parquet.ParquetFile(part, read_dictionary=texts, pre_buffer=False) as file:
            yield from file.iter_batches(batch_size=PARQUET_ROWS, columns=list(kinds), use_threads=False)


def _text_blocks(table: MoleculeTable, kinds: Mapping[str, Kind], text: NDArray[np.uint8] | None) -> Iterator[Any]:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    types: dict[Kind, Any] = {
        "text": pa.dictionary(pa.int32(), pa.string()),
        "float": pa.float64(),
        "integer": pa.int64(),
        "flag": pa.bool_(),
    }
    skip_rows = len(table.comments) + table.has_header if text is None else 0
    with arrow_stream(table.path) if text is None else pa.BufferReader(pa.py_buffer(text.tobytes())) as stream:
        try:
            blocks = arrow_csv.open_csv(
                stream,
                arrow_csv.ReadOptions(
                    use_threads=False, block_size=CSV_BLOCK, skip_rows=skip_rows, column_names=list(table.columns)
                ),
                arrow_csv.ParseOptions(delimiter=table.delimiter),
                arrow_csv.ConvertOptions(
                    include_columns=list(kinds), column_types={name: types[kind] for name, kind in kinds.items()}
                ),
            )
        except pa.ArrowInvalid as error:
            if "Empty CSV file" in str(error):
                return
            raise
        yield from blocks


def _values(column: Any, kind: Kind, *, where: tuple[Path, str, int]) -> Any:
    import pyarrow as pa
    from pyarrow import compute

    if column.null_count:
        row = compute.index(compute.is_null(column), pa.scalar(True)).as_py()  # noqa: FBT003
        raise _bad(where, row, "nothing", kind, n_bad=column.null_count)
    if kind == "text":
        return column if pa.types.is_dictionary(column.type) else column.cast(pa.string()).dictionary_encode()
    if kind == "flag":
        return column.cast(pa.bool_()).to_numpy(zero_copy_only=False)
    values = column.cast(pa.float64() if kind == "float" else pa.int64()).to_numpy(zero_copy_only=False)
    if kind == "float":
        finite = np.isfinite(values)
        if not finite.all():
            row = int(np.argmin(finite))
            raise _bad(where, row, values[row], kind, n_bad=int((~finite).sum()))
    return values


def _bad(where: tuple[Path, str, int], row: int, found: object, kind: Kind, *, n_bad: int) -> InputError:
    path, name, start = where
    expected: dict[Kind, str] = {
        "text": "a name",
        "float": "a finite number",
        "integer": "a whole number",
        "flag": "true or false",
    }
    return InputError(
        "a molecule's value is missing or no number" if kind != "text" else "a molecule has no gene",
        where=f"{path}, column {name}, row {start + row}",
        found=f"{found} ({n_bad} such in this block)",
        expected=expected[kind],
    )


@contextlib.contextmanager
def _arrow_faults(where: object) -> Iterator[None]:
    """Turn what pyarrow raises on damaged files into `InputError`."""
    import pyarrow as pa

    try:
        yield
    except StpatchError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            "the table cannot be read: it is damaged, cut short or holds a value of the wrong kind",
            where=where,
            found=" ".join(str(error).split())[:300],
            hint="look at the row that is named, or fetch the file again",
        ) from error
