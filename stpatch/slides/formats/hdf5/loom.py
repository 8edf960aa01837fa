"""Loom files: HDF5 with ``matrix`` (genes, cells) and one array an attribute of genes and of cells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from stpatch.errors import InputError
from stpatch.slides.formats.counts import read_dense
from stpatch.slides.formats.hdf5.files import faults, hdf5_file, looks_hdf5
from stpatch.slides.formats.names import listed
from stpatch.slides.formats.text.dense import transposed

GENE_NAMES = ("Gene", "gene", "genes", "gene_name", "gene_names", "GeneName", "Symbol", "symbol", "var_names")
GENE_IDS = ("Accession", "accession", "gene_ids", "gene_id", "ensembl_id", "EnsemblID")
CELL_IDS = ("CellID", "cell_id", "obs_names", "barcode", "barcodes", "cell_names", "Cell")


@dataclass(frozen=True, kw_only=True)
class Loom:
    """A loom file: counts (cells, genes), a gene table as in `RawSlide`, ids and attributes of the cells."""

    counts: sparse.csr_matrix
    genes: pd.DataFrame
    cell_ids: NDArray[np.object_]
    cells: pd.DataFrame


def is_loom(path: Path) -> bool:
    """Whether this is an HDF5 file with a loom's groups; one that cannot be opened is an error."""
    if not looks_hdf5(path):
        return False
    with hdf5_file(path) as file:
        return "matrix" in file and "row_attrs" in file and "col_attrs" in file


def loom_genes(path: Path) -> int:
    """Return the number of genes."""
    with hdf5_file(path) as file, faults(path):
        return int(file["matrix"].shape[0])


def read_loom(path: Path, *, id_column: str | None = None, normalized: bool = False) -> Loom:
    """Read a loom file; the dense matrix passes through memory in blocks of genes.

    Raises
    ------
    InputError
        No names of genes or cells, attributes of another length than the matrix, values that are no counts.
    """
    with hdf5_file(path) as file, faults(path):
        n_genes, n_cells = file["matrix"].shape
        rows = _attributes(file["row_attrs"], n_genes, path)
        ids, cells = _cells(file, path, id_column)
        name_key = next((key for key in GENE_NAMES if key in rows), None)
        id_key = next((key for key in GENE_IDS if key in rows), None)
        if name_key is None and id_key is None:
            _only(rows, GENE_NAMES, path, "genes")
        blank = pd.Series(np.full(n_genes, "", dtype=object))
        genes = pd.DataFrame(
            {
                "name": _text(rows[name_key]) if name_key else blank,
                "ensembl_id": _text(rows[id_key]) if id_key else blank,
                "feature_type": blank,
            },
            dtype=object,
        )
        matrix = file["matrix"]
        counts = read_dense(
            lambda start, stop: np.asarray(matrix[start:stop]),
            (n_genes, n_cells),
            where=f"{path}, key matrix",
            normalized=normalized,
        )
    return Loom(counts=transposed(counts), genes=genes, cell_ids=ids, cells=cells)


def loom_cells(path: Path, *, id_column: str | None = None) -> tuple[NDArray[np.object_], pd.DataFrame]:
    """Return ids and attributes of the cells as `read_loom` does, without the matrix."""
    with hdf5_file(path) as file, faults(path):
        return _cells(file, path, id_column)


def _cells(file: Any, path: Path, id_column: str | None) -> tuple[NDArray[np.object_], pd.DataFrame]:
    cells = _attributes(file["col_attrs"], file["matrix"].shape[1], path)
    key = _only(cells, (id_column,) if id_column else CELL_IDS, path, "cells")
    return _text(cells[key]).to_numpy(object), cells.drop(columns=key)


def _attributes(group: Any, size: int, path: Path) -> pd.DataFrame:
    columns: dict[str, Any] = {}
    for key in group:
        values = group[key]
        if getattr(values, "ndim", None) != 1:
            continue
        if values.shape[0] != size:
            raise InputError(
                "an attribute has another length than the matrix",
                where=f"{path}, key {values.name}",
                found=values.shape[0],
                expected=size,
            )
        array = values[:]
        columns[key] = _decoded(array) if array.dtype.kind in "SO" else array
    return pd.DataFrame(columns, index=pd.RangeIndex(size))


def _decoded(values: NDArray[Any]) -> NDArray[np.object_]:
    texts = [value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in values]
    return np.array(texts, dtype=object)


def _text(values: pd.Series) -> pd.Series:
    return pd.Series([str(value) for value in values], dtype=object)


def _only(frame: pd.DataFrame, keys: tuple[str, ...], path: Path, what: str) -> str:
    key = next((key for key in keys if key in frame), None)
    if key is None:
        raise InputError(
            f"the loom file does not name its {what}",
            where=path,
            found=f"attributes {listed(list(frame.columns))}",
            expected=f"one of {', '.join(keys)}",
            hint="name the attribute of cell ids: ingest.table.id_column" if what == "cells" else None,
        )
    return key
