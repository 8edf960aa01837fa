"""Cell tables of the imaging platforms: ids as text, coordinates, and the join to the counts by id."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.errors import InputError, InputMissingError
from stpatch.slides.formats.hdf5.files import as_texts, faults
from stpatch.slides.formats.names import check_unique, listed
from stpatch.slides.formats.parquet import parquet_parts
from stpatch.slides.formats.text.delimited import numbers, read_table
from stpatch.slides.formats.text.lines import read_head


def is_parquet(path: Path) -> bool:
    """Whether a file starts as parquet does."""
    with parquet_parts(path)[0].open("rb") as file:
        return file.read(4) == b"PAR1"


def table_columns(path: Path) -> tuple[str, ...]:
    """Return the column names of a CSV (plain or gzip) or parquet table, "" for the unnamed one."""
    if not is_parquet(path):
        return read_head(path).names
    from pyarrow import parquet

    with faults(path), parquet.ParquetFile(parquet_parts(path)[0]) as file:
        return tuple(file.schema_arrow.names)


def read_cells(path: Path) -> pd.DataFrame:
    """Read a cell table: text columns from CSV, typed ones from parquet.

    Raises
    ------
    InputError
        The file is damaged, or a column is given twice.
    """
    if not is_parquet(path):
        return read_table(path)
    from pyarrow import parquet

    parts = []
    with faults(path):
        for part in parquet_parts(path):
            with parquet.ParquetFile(part) as file:
                parts.append(file.read().to_pandas().reset_index(drop=True))
        frame: pd.DataFrame = parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise InputError(
            "a column is given twice", where=path, found=listed(list(twice)), hint="rename or take out one of them"
        )
    return frame


def need_columns(columns: Iterable[str], names: tuple[str, ...], *, where: object) -> None:
    """Raise `InputError` where a table lacks one of the columns; it names those that are there."""
    columns = tuple(columns)
    missing = [name for name in names if name not in columns]
    if missing:
        raise InputError(
            f"the table has no column {', '.join(missing)}",
            where=where,
            found=f"columns {listed(columns)}",
            expected=", ".join(names),
            hint="export the table anew, or give its columns the platform's names",
        )


def cell_ids(column: pd.Series[Any], *, where: object) -> NDArray[np.object_]:
    """Return (n,) ids as text, digit for digit; bytes are decoded, whole floats lose their ``.0``.

    Raises
    ------
    InputError
        An id is missing.
    """
    place = f"{where}, column {column.name}"
    values = column.to_numpy()
    empty = np.asarray(pd.isna(column), dtype=bool)
    with faults(place):
        ids = as_texts(values) if not empty.any() else np.array([str(value) for value in values], dtype=object)
    bad = np.flatnonzero(empty | np.array([not text.strip() for text in ids], dtype=bool))
    if len(bad):
        raise InputError(
            "a cell has no id",
            where=f"{place}, row {bad[0]}",
            found=f"{len(bad)} such",
            hint="give every cell an id, or take these rows out",
        )
    return ids


def cell_numbers(frame: pd.DataFrame, name: str, *, where: object, missing: bool = False) -> NDArray[np.float64]:
    """Return (n,) float64 of a column; one that is not finite is an `InputError` unless `missing` allows it."""
    column = frame[name]
    if column.dtype.kind not in "iufb":
        texts = column.astype(object).where(column.notna(), "")
        return numbers(texts.map(str).rename(name), where=where, missing=missing)
    values = column.to_numpy(np.float64)
    bad = ~np.isfinite(values) & ~(np.isnan(values) & missing)
    if bad.any():
        first = int(np.argmax(bad))
        raise InputError(
            "a cell is not a finite number",
            where=f"{where}, row {first}, column {name}",
            found=f"{values[first]} ({int(bad.sum())} such)",
            expected="a number",
        )
    return values


def cell_places(
    frame: pd.DataFrame, names: tuple[str, str], *, rows: NDArray[np.intp], where: object
) -> NDArray[np.float64]:
    """Return (cells, 2) float64 places; a cell that none of (n,) `rows` uses may have none (NaN)."""
    xy = np.column_stack([cell_numbers(frame, name, where=where, missing=True) for name in names])
    if not np.isfinite(xy[rows[rows >= 0]]).all():
        xy = np.column_stack([cell_numbers(frame, name, where=where) for name in names])  # which says where
    return xy


def further_columns(
    frame: pd.DataFrame, *, rows: NDArray[np.intp], without: tuple[str, ...], area: str | None, where: object
) -> pd.DataFrame:
    """Return the spot table: the cells' columns but those of id and place, and ``area`` as numbers (NaN: unknown)."""
    kept = [name for name in frame.columns if name and name not in without and name != "area"]
    spots = frame.loc[:, kept].iloc[rows].reset_index(drop=True)
    if area is not None and area in frame.columns:
        spots["area"] = cell_numbers(frame, area, where=where, missing=True)[rows]
    return spots


def join_cells(
    ids: NDArray[np.object_],
    table_ids: NDArray[np.object_],
    *,
    counts: object,
    cells: object,
    may_miss: float = 0.0,
) -> tuple[NDArray[np.intp], Mapping[str, Mapping[str, int]]]:
    """Return the cell table's row of each id of the counts (-1: none), and what the cell table has beyond.

    Parameters
    ----------
    may_miss
        Share of the counts' cells that may be missing from the cell table.

    Raises
    ------
    InputError
        An id is given twice, or more cells of the counts than may miss are not in the cell table: it says how many.
    """
    if not len(ids):
        raise InputError(
            "there is no cell in the counts",
            where=counts,
            hint="export the file anew from the vendor's software, or fetch it again",
        )
    check_unique(ids, what="a cell", where=counts)
    check_unique(table_ids, what="a cell", where=cells)
    rows = np.arange(len(ids), dtype=np.intp)
    if len(ids) != len(table_ids) or (ids != table_ids).any():
        rows = pd.Index(table_ids).get_indexer(pd.Index(ids))
    absent = np.flatnonzero(rows < 0)
    if len(absent) > may_miss * len(ids):
        what = "no cell" if len(absent) == len(ids) else f"{len(absent)} of {len(ids)} cells"
        raise InputError(
            f"{what} of the counts {'is' if len(absent) == len(ids) else 'are not'} in the cell table",
            where=f"{counts} and {cells}",
            found=f"counts have {listed(ids[absent][:3])}; the table has {listed(table_ids[:3])}",
            expected="the same ids in both",
            hint="check that the two files are of one slide",
        )
    beyond = len(table_ids) - (len(ids) - len(absent))
    return rows, {"no counts": {"spots": beyond, "counts": 0}} if beyond else {}


def named_file(path: Path | None, *, column: str) -> Path | None:
    """Return a file that the samplesheet names in a column; one that does not exist is an `InputMissingError`."""
    if path is not None and not path.exists():
        raise InputMissingError(
            "there is no such file",
            where=f"{path}, samplesheet column {column}",
            hint=f"check the path in the column {column}; it is taken from the samplesheet's folder",
        )
    return path


def one_file(folder: Path, pattern: re.Pattern[str]) -> Path | None:
    """Return the folder's only file of this name pattern, None where there is none; several are an `InputError`."""
    found = sorted(item for item in folder.iterdir() if pattern.fullmatch(item.name) and item.is_file())
    if len(found) > 1:
        raise InputError(
            "the folder holds several such files",
            where=folder,
            found=listed([item.name for item in found]),
            expected="one slide a folder",
            hint="keep each slide's files in a folder of their own",
        )
    return found[0] if found else None
