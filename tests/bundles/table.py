"""Generic tables: counts and coordinates in the forms that R, pandas and NumPy leave, and a loom file."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from bundles.st import write_text

CELLS = ("007", "010", "12", "x-1", "x-2")
GENES = ("Actb", "Gad1", "Rnd3")
COUNTS = np.array([[1, 0, 2], [0, 3, 0], [4, 0, 0], [0, 0, 5], [6, 7, 70000]])
XY = np.array([[0.5, -1.0], [1.5, -2.0], [2.5, -3.0], [3.5, -1.0], [4.5, -2.0]])


def write_table(
    folder: Path,
    *,
    genes_in: str = "columns",
    delimiter: str = ",",
    short: bool = False,
    ids: bool = True,
    header: bool = True,
    slides: bool = False,
    end: str = "\n",
    bom: bool = False,
) -> tuple[Path, Path]:
    """Write counts.txt and places.txt; return both paths.

    Parameters
    ----------
    short
        The header is one field short, as R writes it.
    ids, header
        Whether the coordinates table has ids (its rows are then in another order) and a header.
    slides
        Whether the coordinates table has a column ``slide`` (one, two).
    """
    matrix, rows, columns = (COUNTS, CELLS, GENES) if genes_in == "columns" else (COUNTS.T, GENES, CELLS)
    lines = [delimiter.join([*([] if short else ["id"]), *columns])]
    lines += [delimiter.join([name, *map(str, row)]) for name, row in zip(rows, matrix.tolist(), strict=True)]
    mark = "\ufeff" if bom else ""
    counts = write_text(folder / "counts.txt", mark + end.join(lines) + end)
    places = [
        [*([cell] if ids else []), f"{x:.18e}", f"{y:.18e}", *(["one" if i < 3 else "two"] if slides else [])]
        for i, (cell, (x, y)) in enumerate(zip(CELLS, XY.tolist(), strict=True))
    ]
    names = [*(["cell_ID"] if ids else []), "sdimx", "sdimy", *(["slide"] if slides else [])]
    lines = [delimiter.join(row) for row in ([names] if header else []) + (places[::-1] if ids else places)]
    return counts, write_text(folder / "places.txt", mark + end.join(lines) + end)


def write_loom(folder: Path, *, coordinates: bool = True, valid: bool = True) -> Path:
    """Write cells.loom: genes in rows, attributes of genes and cells."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "cells.loom"
    with h5py.File(path, "w") as file:
        file["matrix"] = COUNTS.T.astype(float)
        file["row_attrs/Gene"] = np.array(GENES, dtype="S")
        file["col_attrs/CellID"] = np.array(CELLS, dtype="S")
        file["col_attrs/Region"] = np.array(["a", "b", "a", "b", "b"], dtype="S")
        if coordinates:
            file["col_attrs/X"], file["col_attrs/Y"] = XY.T
        if valid:
            file["col_attrs/Valid"] = np.array([1, 1, 0, 1, 1])
        file.create_group("layers")
    return path
