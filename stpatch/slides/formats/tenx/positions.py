"""The positions table of Visium and Visium HD: one row a spot of the array, in four files' variants."""

from __future__ import annotations

import csv
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.errors import InputError
from stpatch.slides.formats.barcodes import flags, is_flag
from stpatch.slides.formats.hdf5.files import as_texts
from stpatch.slides.formats.names import check_unique
from stpatch.slides.formats.places import check_finite
from stpatch.slides.formats.text.lines import open_text

COLUMNS = ("barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")
ALIASES = {
    "barcodes": "barcode", "tissue": "in_tissue", "row": "array_row", "col": "array_col",
    "imagerow": "pxl_row_in_fullres", "imagecol": "pxl_col_in_fullres",
}  # fmt: skip
"""Names that columns have in tables that R packages write."""
POSITIONS = re.compile(
    r"(?P<prefix>(?!aggr_).+[_.-])?(?P<name>tissue_positions(?:_list)?\.(?:parquet|csv|tsv|txt))(?P<gz>\.gz)?"
)
FILES = (
    "tissue_positions.parquet",
    "tissue_positions.csv",
    "tissue_positions_list.csv",
    "tissue_positions_list.txt",
)
"""In order of preference: newer software first."""


@dataclass(frozen=True, kw_only=True)
class Positions:
    """Spots of an array.

    Attributes
    ----------
    barcodes
        (n,) str, unique.
    in_tissue
        (n,) bool.
    array
        (n, 2) int32 (array_row, array_col).
    xy
        (n, 2) float64 full-resolution pixels: x = pxl_col, y = pxl_row.
    """

    barcodes: NDArray[np.object_]
    in_tissue: NDArray[np.bool_]
    array: NDArray[np.int32]
    xy: NDArray[np.float64]


def positions_in(folder: Path) -> dict[str, Path]:
    """Return the positions tables of a folder by the prefix of their names; the newest form of each prefix."""
    found: dict[str, list[tuple[int, bool, Path]]] = {}
    for item in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = POSITIONS.fullmatch(item.name)
        if match is not None and item.is_file():
            rank = FILES.index(match["name"]) if match["name"] in FILES else len(FILES)
            found.setdefault(match["prefix"] or "", []).append((rank, match["gz"] is not None, item))
    return {prefix: min(items)[2] for prefix, items in found.items()}


def first_barcode(path: Path) -> str:
    """Return the first spot's barcode, "" in an empty table."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        _parquet_schema(path)
        try:
            for batch in pq.ParquetFile(path).iter_batches(batch_size=1, columns=[COLUMNS[0]]):
                return str(as_texts(np.array(batch.column(0).to_pylist(), dtype=object))[0])
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _damaged_parquet(path, error) from error
        return ""
    rows = _text_rows(path, limit=2)
    if rows and _is_header(rows[0]):
        rows = rows[1:]
    return rows[0][0] if rows else ""


def read_positions(path: Path) -> Positions:
    """Read a positions table; the header is recognized by the first row.

    Raises
    ------
    InputError
        A column is missing, a cell is not a number, a coordinate is not finite, a barcode is given twice.
    """
    table = _parquet_columns(path) if path.suffix == ".parquet" else _text_columns(path)
    barcodes = as_texts(np.asarray(table["barcode"], dtype=object))
    if not len(barcodes):
        raise InputError("the positions table is empty", where=path, hint="fetch the file again, or repair it")
    check_unique(barcodes, what="a barcode", where=path)
    table["in_tissue"] = _flags(table["in_tissue"])
    numbers = {name: _numbers(table[name], name, path, barcodes) for name in COLUMNS[1:]}
    for name in ("in_tissue", "array_row", "array_col"):
        _check_whole(numbers[name], name, path, barcodes, limit=2 if name == "in_tissue" else 2**31)
    xy = np.column_stack([numbers["pxl_col_in_fullres"], numbers["pxl_row_in_fullres"]])
    check_finite(xy, where=path, ids=barcodes)
    return Positions(
        barcodes=barcodes,
        in_tissue=numbers["in_tissue"] == 1,
        array=np.column_stack([numbers["array_row"], numbers["array_col"]]).astype(np.int32),
        xy=xy,
    )


def _flags(cells: Any) -> Any:
    """Return words for yes and no as numbers; cells that are no such words stay as they are."""
    texts = [str(cell) for cell in cells]
    return flags(texts) if all(map(is_flag, texts)) else cells


def _is_header(row: list[str]) -> bool:
    return (
        len(row) > 1
        and not is_flag(row[1])
        and not row[1].strip().strip('"').lstrip("+-").replace(".", "", 1).isdecimal()
    )


def _text_rows(path: Path, *, limit: int | None = None) -> list[list[str]]:
    rows: list[list[str]] = []
    try:
        with open_text(path) as file:
            line = file.readline(1 << 20)
            delimiter = "\t" if "\t" in line and "," not in line else ","
            file.seek(0)
            for row in csv.reader(file, delimiter=delimiter):
                if row:
                    rows.append([cell.strip() for cell in row])
                if limit is not None and len(rows) == limit:
                    break
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise InputError(
            "the positions table cannot be read: it is damaged or cut short",
            where=path,
            found=str(error),
            hint="fetch the file again, or repair it",
        ) from error
    return rows


def _text_columns(path: Path) -> dict[str, list[str]]:
    rows = _text_rows(path)
    names = list(COLUMNS)
    if rows and _is_header(rows[0]):
        names = [ALIASES.get(name, name) for name in rows.pop(0)]
        if rows and len(rows[0]) == len(names) + 1:
            names = ["", *names]  # R leaves the column of row names without one
        if "barcode" not in names and names[0] == "":
            names[0] = "barcode"
        missing = [name for name in COLUMNS if name not in names]
        if missing:
            raise InputError(
                "the positions table lacks a column",
                where=path,
                found=", ".join(names),
                expected=", ".join(missing),
            )
    for number, row in enumerate(rows):
        if len(row) != len(names):
            raise InputError(
                "a row of the positions table has the wrong number of cells",
                where=f"{path}, row {number}",
                found=len(row),
                expected=f"{len(names)}: {', '.join(names)}",
            )
    columns = list(zip(*rows, strict=True)) or [() for _ in names]
    return {name: list(columns[names.index(name)]) for name in COLUMNS}


def _parquet_schema(path: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged_parquet(path, error) from error
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise InputError(
            "the positions table lacks a column", where=path, found=", ".join(names), expected=", ".join(missing)
        )
    return names


def _parquet_columns(path: Path) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    _parquet_schema(path)
    try:
        table = pq.read_table(path, columns=list(COLUMNS))
        return {name: table.column(name).to_numpy() for name in COLUMNS}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged_parquet(path, error) from error


def _damaged_parquet(path: Path, error: Exception) -> InputError:
    return InputError(
        "the positions table is not readable parquet: it is damaged or cut short",
        where=path,
        found=" ".join(str(error).split())[:300],
        hint="fetch the file again, or repair it",
    )


def _numbers(cells: Any, name: str, path: Path, barcodes: NDArray[np.object_]) -> NDArray[np.float64]:
    values = pd.to_numeric(pd.Series(cells), errors="coerce").to_numpy(dtype=np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(
            f"{name} is not a finite number",
            where=f"{path}, row {row}, barcode {barcodes[row]}",
            found=f"{cells[row]!r} ({int(bad.sum())} such)",
            hint="export the file anew from the vendor's software, or fetch it again",
        )
    return values


def _check_whole(
    values: NDArray[np.float64], name: str, path: Path, barcodes: NDArray[np.object_], *, limit: int
) -> None:
    bad = (values != np.rint(values)) | (values < 0) | (values >= limit)
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(
            f"{name} is out of range",
            where=f"{path}, row {row}, barcode {barcodes[row]}",
            found=values[row],
            expected="0 or 1" if limit == 2 else "a whole number from 0",
        )
