"""The three tables beside the shards: genes, slides and patches, as Parquet files with fixed columns and fixed bytes.

A slide's measured genes are a bit mask over gene ids, because a list of ids would take thirty times the space: bit
``gene_id`` (least significant first; the pad's is never set) of column ``measured``. Without stpatch that is
``numpy.unpackbits(numpy.frombuffer(measured, "uint8"), bitorder="little")[gene_ids]``.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.entries import FileEntry
from stpatch.dataset.layout import Layout
from stpatch.errors import DatasetError
from stpatch.storage import atomic_file

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

ROW_GROUP = 1 << 16
"""Rows of a row group; one of patches.parquet never spans splits, so that a reader of one split skips the others."""

GENES = {
    "gene_id": "int32",  # ascending: 1, 2, ... in order of the names, or the ids of a given vocabulary
    "name": "string",
    "ensembl_id": "string?",
    "organism": "string?",
    "channel": "int32?",  # position on the channel axis (scope panel); null: no channel
    "n_slides": "int32",  # slides that measured it
    "n_spots": "int64",  # spots of those slides
    "n_detected": "int64",  # spots with a count
    "sum_counts": "float64",
    "sum_squared_counts": "float64",
    "mean_normalized": "float64",
    "var_normalized": "float64",  # over spots, with n - 1
}
CANDIDATE = {"candidate": "bool"}
"""Column of genes.parquet where a patch rule may draw from some genes only: those that it is true for."""
SLIDES = {
    "slide_id": "string",
    "platform": "string",
    "organism": "string?",
    "split": "string?",  # null: the slide's patches are in several splits, or in none
    "metadata": "string",  # JSON, the samplesheet's further columns
    "inputs": "string",  # JSON, the files with size and SHA-256
    "spots": "int64",
    "genes": "int32",  # measured
    "rows": "int32",  # of the grid
    "cols": "int32",
    "pitch_um": "float64?",
    "origin_x": "float64?",
    "origin_y": "float64?",
    "patches": "int64",
    "qc": "string",  # JSON, what QC dropped by reason
    "target_sum": "float64?",  # of the normalization
    "measured": "binary",  # bit mask over gene ids, see above
}
DIGESTS = {
    "digest_matrix": "string?",  # SHA-256 of the section's genes and counts, see stpatch.slides.digests; null: too few
    "digest_genes": "string?",  # ... of its sums per gene, whatever the names
    "digest_spots": "string?",  # ... of its sums per spot
}
"""Columns that slides.parquet ends with; a reader does without them, since earlier datasets do not have them."""
PATCHES = {
    "key": "string",
    "split": "string",
    "shard": "string",  # the tar file, or the file of zarr array x
    "index": "int32",  # in the shard
    "offset": "int64",  # of the sample's bytes in the shard file
    "nbytes": "int64",
    "slide_id": "string",
    "row": "int32",  # of the top left pixel in the slide's grid
    "col": "int32",
    "n_spots": "int32",
    "coverage": "float32",  # occupied share of the pixels
}
CHECKSUM = {"crc32c": "uint32"}  # of the sample's stored bytes
CHECKSUMS_SINCE = 2
"""The first version of the format whose patches.parquet has them."""
_NUMPY = {"float": "float32", "double": "float64"}
_ROWS_PER_BYTE = 16
"""More rows than that have no names of their own in any of the tables, however well they are packed."""
_FEW_VALUES = {"platform", "organism", "split", "shard", "slide_id"}


def patch_columns(layout: Layout, *, draws: int = 1) -> dict[str, str]:
    """Return the columns of patches.parquet: height and width where samples vary, draw where there are several."""
    columns = PATCHES | (CHECKSUM if layout.version >= CHECKSUMS_SINCE else {})
    if layout.variable:
        columns |= {"height": "int32", "width": "int32"}
    if draws > 1:
        columns["draw"] = "int32"
    return columns


def write_table(
    folder: Path, name: str, columns: Mapping[str, str], values: Mapping[str, Sequence[Any] | NDArray[Any]]
) -> FileEntry:
    """Write ``<name>.parquet`` into the dataset's folder; equal values give equal bytes.

    Parameters
    ----------
    folder, name
        The dataset's folder; genes, slides or patches.
    columns
        Names and types; ``?`` marks a column that may hold nulls.
    values
        One sequence or array per column, all of one length. Null is None, and NaN in a float column with ``?``.

    Raises
    ------
    DatasetError
        Columns are missing, too many, of different lengths, or of a wrong type; or a null where none may be.
    """
    import pyarrow as pa

    where = f"{name}.parquet"
    if set(values) != set(columns):
        raise DatasetError(
            "a table has other columns than its schema",
            where=where,
            found=", ".join(sorted(values)),
            expected=", ".join(sorted(columns)),
        )
    arrays = [_array(values[column], kind, where=f"{where}, column {column}") for column, kind in columns.items()]
    if len({len(array) for array in arrays}) != 1:
        raise DatasetError(
            "a table's columns differ in length",
            where=where,
            found=[len(array) for array in arrays],
            hint="fetch the dataset's files again, or build it again",
        )
    table = pa.Table.from_arrays(arrays, schema=schema(columns))
    with atomic_file(folder / where) as file:
        write_arrow(table, file, name)
    data = (folder / where).read_bytes()
    return FileEntry(path=where, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def write_arrow(table: pa.Table, file: Any, name: str) -> None:
    """Write a table that has its columns and types to a binary file: ``genes``, ``slides`` or ``patches``."""
    import pyarrow.parquet as pq

    columns = set(table.column_names)
    writer = pq.ParquetWriter(
        file,
        table.schema,
        version="2.6",
        compression="zstd",
        compression_level=3,
        use_dictionary=sorted(_FEW_VALUES & columns),
        write_statistics=sorted(columns - {"measured", "metadata", "inputs", "qc"}),
        store_schema=False,
        write_page_checksum=True,
    )
    with writer:
        for start, stop in _row_groups(table, by="split" if name == "patches" else None):
            writer.write_table(table.slice(start, stop - start), row_group_size=ROW_GROUP)


def read_table(
    path: Path,
    columns: Mapping[str, str],
    *,
    split: str | None = None,
    rows: int | None = None,
    without: Container[str] = (),
) -> pa.Table:
    """Read a table, of patches.parquet one split's rows only where `split` is given.

    Parameters
    ----------
    path, columns
        The file, and its columns with their types.
    split
        Of patches.parquet: the only split to read.
    rows
        How many there must be; looked at before any of them is read.
    without
        Columns that may be missing, and are then left out.

    Raises
    ------
    DatasetError
        The file is missing or damaged (its pages carry checksums), lacks a column, or has another number of rows.
    """
    with _parquet(path, columns, rows=rows, without=without) as (file, found, groups):
        chosen = groups if split is None else [group for group in groups if _holds(file, group, split)]
        table: pa.Table = file.read_row_groups(chosen, columns=list(found))
    return table if split is None else _of_split(table, split)


def table_blocks(path: Path, columns: Mapping[str, str], *, split: str | None = None) -> Iterator[pa.Table]:
    """Read a table row group by row group, so that it is never in memory as a whole; see `read_table`."""
    with _parquet(path, columns) as (file, _, groups):
        for group in groups:
            if split is None or _holds(file, group, split):
                table = file.read_row_group(group, columns=list(columns))
                yield table if split is None else _of_split(table, split)


@contextlib.contextmanager
def _parquet(
    path: Path, columns: Mapping[str, str], *, rows: int | None = None, without: Container[str] = ()
) -> Iterator[tuple[pq.ParquetFile, Mapping[str, str], list[int]]]:
    """Open a table, with those of the columns that it has and the numbers of its row groups; see `read_table`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            columns = {
                name: kind
                for name, kind in columns.items()
                if name not in without or file.schema_arrow.get_field_index(name) >= 0
            }
            _check_schema(file.schema_arrow, columns, path)
            _check_rows(file.metadata.num_rows, rows, path)
            yield file, columns, list(range(file.num_row_groups))
    except FileNotFoundError:
        raise DatasetError("a table is missing", where=path, hint="copy or build the dataset again") from None
    except DatasetError:
        raise
    except (OSError, pa.ArrowException, ValueError, MemoryError) as error:
        raise DatasetError(
            "a table cannot be read",
            where=path,
            found=str(error).split("\n", 1)[0][:200],
            hint="fetch the dataset's files again, or build it again",
        ) from error


def _holds(file: pq.ParquetFile, group: int, split: str) -> bool:
    return _may_hold(file.metadata.row_group(group), "split", split)


def _of_split(table: pa.Table, split: str) -> pa.Table:
    import pyarrow.compute as pc

    alone = table["split"].unique().to_pylist() == [split]
    return table if alone else table.filter(pc.equal(table["split"], split))


def numbers(column: pa.ChunkedArray, *, where: object = None) -> NDArray[Any]:
    """Return a numeric column as an array, from its buffers: pyarrow's own way would import pandas.

    Raises
    ------
    DatasetError
        A value is missing.
    """
    if column.null_count:
        raise DatasetError(
            "a table's column has missing values",
            where=where,
            found=f"{column.null_count} nulls",
            hint="fetch the dataset's files again, or build it again",
        )
    dtype = np.dtype(_NUMPY.get(str(column.type), str(column.type)))
    return np.concatenate([np.empty(0, dtype), *(_values(chunk, dtype) for chunk in column.chunks)])


def indices(rows: NDArray[np.int64]) -> pa.Array:
    """Return row numbers as pyarrow takes them, by their buffer: its own way would import pandas."""
    import pyarrow as pa

    return pa.Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(np.ascontiguousarray(rows))])


def codes(column: pa.ChunkedArray) -> tuple[NDArray[np.int32], list[Any]]:
    """Return a column as (rows,) positions in the list of its different values, as they come; None for nulls."""
    values: dict[Any, int] = {}
    parts = [np.empty(0, np.int32)]
    for chunk in column.chunks:
        encoded = chunk.dictionary_encode(null_encoding="encode")
        known = [values.setdefault(value, len(values)) for value in encoded.dictionary.to_pylist()]
        parts.append(np.array(known, dtype=np.int32)[_values(encoded.indices, np.dtype(np.int32))])
    return np.concatenate(parts), list(values)


def _values(array: pa.Array, dtype: np.dtype[Any]) -> NDArray[Any]:
    data = array.buffers()[1]
    if data is None or not len(array):
        return np.empty(0, dtype)
    return np.frombuffer(data, dtype=dtype, offset=array.offset * dtype.itemsize, count=len(array))


def schema(columns: Mapping[str, str]) -> pa.Schema:
    """Return the Arrow schema of a table's columns."""
    import pyarrow as pa

    return pa.schema([pa.field(name, _arrow_type(kind), nullable=kind.endswith("?")) for name, kind in columns.items()])


def pack_measured(gene_ids: NDArray[np.integer[Any]], largest: int) -> bytes:
    """Return the bit mask of a slide's measured genes; `largest` is the largest id there is, the pad's included."""
    mask = np.zeros(largest + 1, dtype=bool)
    mask[gene_ids] = True
    return np.packbits(mask, bitorder="little").tobytes()


def unpack_measured(data: bytes, largest: int) -> NDArray[np.bool_]:
    """Return (largest + 1,) whether a slide measured a gene, by gene id."""
    return np.unpackbits(np.frombuffer(data, np.uint8), count=largest + 1, bitorder="little").astype(bool)


def _array(values: Sequence[Any] | NDArray[Any], kind: str, *, where: str) -> pa.Array:
    import pyarrow as pa

    if isinstance(values, pa.Array | pa.ChunkedArray):
        values = values.cast(_arrow_type(kind))
    try:
        from_nan = kind == "float64?"
        array = pa.array(values, type=_arrow_type(kind), from_pandas=from_nan)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise DatasetError(
            "a table's column has values of a wrong type",
            where=where,
            found=error,
            hint="fetch the dataset's files again, or build it again",
        ) from error
    if array.null_count and not kind.endswith("?"):
        raise DatasetError(
            "a table's column has missing values",
            where=where,
            found=f"{array.null_count} nulls",
            hint="fetch the dataset's files again, or build it again",
        )
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _arrow_type(kind: str) -> pa.DataType:
    import pyarrow as pa

    return pa.type_for_alias(kind.rstrip("?"))


def _row_groups(table: pa.Table, *, by: str | None) -> list[tuple[int, int]]:
    """Cut rows where a column's value changes, and into row groups."""
    edges = [0, table.num_rows]
    if by is not None and table.num_rows:
        groups, _ = codes(table[by])
        edges = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), table.num_rows]
    return [
        (start, min(start + ROW_GROUP, stop))
        for first, stop in itertools.pairwise(edges)
        for start in range(first, stop, ROW_GROUP)
    ]


def _check_schema(found: pa.Schema, columns: Mapping[str, str], path: Path) -> None:
    for name, kind in columns.items():
        position = found.get_field_index(name)
        if position < 0 or found.field(position).type != _arrow_type(kind):
            raise DatasetError(
                "a table lacks a column",
                where=path,
                found=", ".join(f"{field.name} {field.type}" for field in found),
                expected=f"{name} {kind.rstrip('?')}",
            )


def _check_rows(found: int, expected: int | None, path: Path) -> None:
    """Raise `DatasetError` for a number of rows that is not the expected one, or that no file of this size holds."""
    most = _ROWS_PER_BYTE * path.stat().st_size
    if found > most or expected not in (None, found):
        raise DatasetError(
            "a table has another number of rows",
            where=path,
            found=found,
            expected=f"at most {most}" if expected is None else expected,
            hint="fetch the dataset's files again, or build it again",
        )


def _may_hold(group: Any, column: str, value: str) -> bool:
    """Whether a row group's statistics allow for a value in a column."""
    for position in range(group.num_columns):
        chunk = group.column(position)
        if chunk.path_in_schema == column and chunk.statistics is not None and chunk.statistics.has_min_max:
            return bool(chunk.statistics.min <= value <= chunk.statistics.max)
    return True
