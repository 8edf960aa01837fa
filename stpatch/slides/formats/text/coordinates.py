"""Coordinates tables of any make: which columns are x, y and the ids, and how their rows meet the counts' spots."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.errors import InputError
from stpatch.slides.formats.barcodes import join_barcodes
from stpatch.slides.formats.names import listed
from stpatch.slides.formats.places import array_indices
from stpatch.slides.formats.tenx.lattice import is_hexagonal
from stpatch.slides.formats.text.delimited import numbers, read_table
from stpatch.slides.formats.text.lines import Head, read_head
from stpatch.slides.slide import Geometry

XY_NAMES = (
    ("x", "y"), ("sdimx", "sdimy"), ("xcoord", "ycoord"), ("x_coord", "y_coord"), ("center_x", "center_y"),
    ("x_centroid", "y_centroid"), ("centroid_x", "centroid_y"), ("pixel_x", "pixel_y"), ("x_um", "y_um"),
    ("global_x", "global_y"), ("x_location", "y_location"), ("x_position", "y_position"), ("imagecol", "imagerow"),
    ("pxl_col_in_fullres", "pxl_row_in_fullres"),
)  # fmt: skip
"""Names that x and y go by, in lower case."""
ID_NAMES = frozenset(
    {"", "id", "ids", "cell", "cell_id", "cellid", "cells", "barcode", "barcodes", "spot", "spot_id", "spotid", "bead",
     "label", "name", "index", "unnamed: 0", "entityid"}
)  # fmt: skip
"""Names that a column of ids goes by, in lower case."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Coordinates:
    """A coordinates table.

    Attributes
    ----------
    table
        All columns as text; a table without a header has the columns "1", "2", ...
    xy
        (n, 2) finite float64.
    id_column
        The column that should hold ids, None where none looks like it.
    """

    path: Path
    table: pd.DataFrame
    xy: NDArray[np.float64]
    id_column: str | None
    others: tuple[str, ...]


def has_header(head: Head) -> bool:
    """Whether the first line names columns: fewer than two of its cells are numbers."""
    return head.short or sum(_NUMBER.fullmatch(cell) is not None for cell in head.header) < 2


def find_xy(names: Sequence[str], *, x: str | None, y: str | None, where: object) -> tuple[str, str]:
    """Return the names of the x and y columns: the given ones, else the only known pair.

    Raises
    ------
    InputError
        A given name is missing; no pair is known, or several are.
    """
    if (x is None) != (y is None):
        raise InputError(
            "give both or none of x_column and y_column",
            where=where,
            found=f"x_column {x}, y_column {y}",
            hint="name both columns, or leave both to be found by name",
        )
    if x is not None and y is not None:
        for name in (x, y):
            if name not in names:
                raise InputError(
                    f"there is no column {name!r}",
                    where=where,
                    found=f"columns {listed(names)}",
                    hint="set ingest.table.x_column and y_column to two of the columns",
                )
        return x, y
    lower = {name.lower(): name for name in reversed(names)}
    pairs = [(lower[a], lower[b]) for a, b in XY_NAMES if a in lower and b in lower]
    if len(pairs) != 1:
        raise InputError(
            "several pairs of columns may be x and y" if pairs else "no columns look like x and y",
            where=where,
            found="; ".join(f"{a}, {b}" for a, b in pairs) if pairs else f"columns {listed(names)}",
            hint="name them: ingest.table.x_column and y_column, or samplesheet columns of these names",
        )
    return pairs[0]


def read_coordinates(
    path: Path, *, x_column: str | None = None, y_column: str | None = None, id_column: str | None = None
) -> Coordinates:
    """Read a coordinates table, with or without header and ids.

    A table without a header has its columns numbered from "1": of two numeric columns the first is x; a column of text
    holds the ids.
    """
    head = read_head(path)
    if has_header(head):
        table = read_table(path, delimiter=head.delimiter)
        first_row = 2
    else:
        names = [str(i + 1) for i in range(len(head.header))]
        table = read_table(path, delimiter=head.delimiter, header=names)
        first_row = 1
        numeric = [name for name, cell in zip(names, head.header, strict=True) if _NUMBER.fullmatch(cell)]
        if x_column is None and y_column is None:
            if len(numeric) != 2:
                raise InputError(
                    "the table has no header and not two columns of numbers",
                    where=path,
                    found=f"{len(numeric)} columns of numbers",
                    hint="name them by number, from 1: ingest.table.x_column and y_column (and id_column)",
                )
            x_column, y_column = numeric
            text = [name for name in names if name not in numeric]
            id_column = id_column or (text[0] if len(text) == 1 else None)
    if not len(table):
        raise InputError("the coordinates table has no rows", where=path, hint="fetch the file again, or repair it")
    columns = list(table.columns)
    x, y = find_xy(columns, x=x_column, y=y_column, where=path)
    if id_column is not None and id_column not in columns:
        raise InputError(
            f"there is no id column {id_column!r}",
            where=path,
            found=f"columns {listed(columns)}",
            hint="set ingest.table.id_column to one of the columns",
        )
    xy = np.column_stack([numbers(table[name], where=path, first_row=first_row) for name in (x, y)])
    others = tuple(name for name in columns if name not in (x, y))
    if id_column is None:
        known = [name for name in others if name.lower() in ID_NAMES]
        id_column = known[0] if known else None
    return Coordinates(path=path, table=table, xy=xy, id_column=id_column, others=others)


def rows_of(ids: Sequence[str] | NDArray[np.object_], keys: pd.Series, *, where: object) -> NDArray[np.int64]:
    """Return (ids,) the row of each id among the keys, -1 without one.

    Raises
    ------
    InputError
        An id that is looked for is given twice among the keys.
    """
    index = pd.Index(keys.to_numpy(object), dtype=object)
    if not index.is_unique:
        twice = index[index.duplicated()]
        wanted = twice[twice.isin(np.asarray(ids, dtype=object))]
        if len(wanted):
            row = int(np.flatnonzero(index == wanted[0])[1])
            raise InputError(
                "an id is given twice",
                where=f"{where}, data row {row + 1}",
                found=f"{wanted[0]!r} in {keys.name!r}",
                hint="take one of the rows out, or rename it",
            )
        keep = ~index.duplicated()
        places = np.flatnonzero(keep)
        found = index[keep].get_indexer(pd.Index(ids, dtype=object))
        return np.where(found < 0, -1, places[found])
    return np.asarray(index.get_indexer(pd.Index(ids, dtype=object)), np.int64)


def joined_rows(
    ids: NDArray[np.object_], keys: pd.Series, *, where: object
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the row of each id among the keys as `rows_of`; texts that agree but for a suffix are joined and noted."""
    rows = rows_of(ids, keys, where=where)
    if (rows >= 0).all() or not keys.is_unique:
        return rows, ()
    join = join_barcodes(ids, keys)
    return (np.asarray(join.rows, np.int64), (join.note,)) if join.note else (rows, ())


def matching_column(table: pd.DataFrame, columns: Sequence[str], ids: NDArray[np.object_]) -> tuple[str | None, int]:
    """Return the column that holds most of the ids, and how many; None where no column holds one."""
    wanted = pd.Index(ids, dtype=object)
    best, most = None, 0
    for name in columns:
        shared = int(wanted.isin(table[name].to_numpy(object)).sum())
        if shared > most:
            best, most = name, shared
    return best, most


def array_of(table: pd.DataFrame, *, where: object) -> tuple[NDArray[np.int32] | None, Geometry]:
    """Return ``array_row, array_col`` where a table has them: Visium's hexagonal if they have its parity."""
    if "array_row" not in table or "array_col" not in table:
        return None, "irregular"
    values = np.column_stack([numbers(table[name], where=where) for name in ("array_row", "array_col")])
    array = array_indices(values, where=where)
    return array, "hex" if is_hexagonal(array) else "square"
