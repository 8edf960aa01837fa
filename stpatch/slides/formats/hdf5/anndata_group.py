"""An AnnData group in HDF5 or zarr: its tables and its matrix, element by element, nothing else of the file read."""

from __future__ import annotations

import contextlib
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from stpatch.errors import InputError, StpatchError
from stpatch.slides.formats.counts import (
    csr_of,
    read_dense,
    read_indices,
    read_pointers,
    read_values,
)
from stpatch.slides.formats.hdf5.elements import is_plain, read_plain
from stpatch.slides.formats.hdf5.files import attribute_text, faults, hdf5_file, is_hdf5
from stpatch.slides.formats.names import gene_table
from stpatch.slides.slide import gene_number_dtype

_ENSEMBL = re.compile(r"ENS[A-Z]*G\d{9,}(\.\d+)?")
SYMBOL_COLUMNS = ("gene_symbols", "gene_symbol", "gene_names", "gene_name", "feature_name", "symbol")
ENSEMBL_COLUMNS = ("gene_ids", "gene_id", "ensembl_ids", "ensembl_id", "ensembl", "feature_id")
TYPE_COLUMNS = ("feature_types", "feature_type", "feature_biotype")


def zarr_attributes(folder: Path) -> dict[str, Any] | None:
    """Return the attributes of a zarr group (format 2 or 3) without opening the store; None if it is no group."""
    try:
        if (folder / "zarr.json").is_file():
            text = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))
            attributes = text.get("attributes", {}) if text.get("node_type") == "group" else None
        elif (folder / ".zgroup").is_file():
            file = folder / ".zattrs"
            attributes = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        else:
            return None
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            "the zarr group's metadata cannot be read",
            where=folder,
            found=error,
            hint="fetch the file again, or repair it",
        ) from error
    return attributes if isinstance(attributes, dict) else None


def is_anndata(path: Path) -> bool:
    """Whether `path` is an HDF5 file or zarr group of AnnData, by its marks or (before 0.7) by its members."""
    if path.is_dir():
        attributes = zarr_attributes(path)
        if attributes is None:
            return False
        members = {item.name for item in path.iterdir()}
        return attributes.get("encoding-type") == "anndata" or {"X", "obs", "var"} <= members
    if not is_hdf5(path):
        return False
    with hdf5_file(path) as file:
        return attribute_text(file.attrs.get("encoding-type")) == "anndata" or {"X", "obs", "var"} <= set(file)


@contextlib.contextmanager
def anndata_group(path: Path) -> Iterator[AnnDataGroup]:
    """Open an AnnData HDF5 file or zarr group for reading."""
    if path.is_dir():
        import zarr

        with warnings.catch_warnings(), faults(path):
            warnings.simplefilter("ignore")
            yield AnnDataGroup(zarr.open_group(path, mode="r"), path)
    else:
        with hdf5_file(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old encodings: the file is what it is
            yield AnnDataGroup(file, path)


class AnnDataGroup:
    """An open AnnData group.

    Parameters
    ----------
    group
        An h5py or zarr group.
    path
        For messages.
    """

    def __init__(self, group: Any, path: Path) -> None:
        self.group = group
        self.path = path

    def has(self, key: str) -> bool:
        """Whether there is an element."""
        with faults(self.where(key)):
            return key in self.group

    def where(self, key: str) -> str:
        """Return file and key, for messages."""
        return f"{self.path}, key {key}"

    def read(self, key: str) -> Any:
        """Read one element, through anndata unless it is plain."""
        with faults(self.where(key)):
            item = self.group[key]
            if is_plain(item):
                return read_plain(item)
            from anndata.io import read_elem

            try:
                return read_elem(item)
            except Exception as error:  # anndata's own errors have no public base
                raise ValueError(str(error)) from error

    def keys(self, key: str) -> list[str]:
        """Return a group's members; none where it does not exist."""
        with faults(self.where(key)):
            if key not in self.group or not hasattr(self.group[key], "keys"):
                return []
            return sorted(self.group[key])

    def columns(self, key: str) -> list[str]:
        """Return the column names of a table without reading it."""
        with faults(self.where(key)):
            table = self.group[key]
            if hasattr(table, "keys"):
                return sorted(table)
            return list(table.dtype.names or ())

    def frame(self, key: str) -> pd.DataFrame:
        """Read ``obs`` or ``var``; text index."""
        if not self.has(key):
            raise InputError(f"the AnnData file has no {key!r}", where=self.path, expected=key)
        value = self.read(key)
        with faults(self.where(key)):
            if not isinstance(value, pd.DataFrame):  # before anndata 0.7: a record array
                value = pd.DataFrame.from_records(np.asarray(value))
                value = value.set_index("index" if "index" in value else value.columns[0])
            if pd.api.types.infer_dtype(value.index, skipna=False) != "string":
                value.index = [item.decode() if isinstance(item, bytes) else str(item) for item in value.index]
            value.index = value.index.astype(object)
            value.columns = [str(name) for name in value.columns]
        return value

    def shape(self, key: str) -> tuple[int, int]:
        """Return a matrix's (rows, columns) from its header."""
        with faults(self.where(key)):
            matrix = self.group[key]
            if hasattr(matrix, "keys") and "column-order" in matrix.attrs:  # a table in obsm
                index = matrix[attribute_text(matrix.attrs["_index"])]
                rows = index["values"] if hasattr(index, "keys") else index
                shape = (rows.shape[0], len(matrix.attrs["column-order"]))
            elif hasattr(matrix, "keys"):
                shape = matrix.attrs.get("shape", matrix.attrs.get("h5sparse_shape"))
            else:
                shape = matrix.shape
            if shape is None or len(shape) != 2:
                raise InputError(
                    "the matrix has no shape of two numbers",
                    where=self.where(key),
                    found=shape,
                    hint="write the AnnData anew with a matrix of spots x genes",
                )
            return int(shape[0]), int(shape[1])

    def matrix(self, key: str, *, normalized: bool = False) -> sparse.csr_matrix:
        """Read a sparse or dense matrix in blocks, checked.

        Raises
        ------
        FractionalError
            A value is fractional and `normalized` is not set.
        InputError
            Any other fault.
        """
        shape = self.shape(key)
        where = self.where(key)
        with faults(where):
            matrix = self.group[key]
            if not hasattr(matrix, "keys"):
                return read_dense(
                    lambda start, stop: np.asarray(matrix[start:stop]), shape, where=where, normalized=normalized
                )
            attributes = matrix.attrs
            kind = attribute_text(attributes.get("encoding-type", attributes.get("h5sparse_format")))
            by_column = kind.startswith("csc")
            if not by_column and not kind.startswith("csr"):
                raise InputError(
                    "the matrix is neither dense nor CSR nor CSC",
                    where=where,
                    found=kind,
                    expected="a dense array, csr_matrix or csc_matrix",
                )
            major, minor = shape[::-1] if by_column else shape
            data = read_values(matrix["data"], where=f"{where}/data", normalized=normalized)
            dtype = np.dtype(np.int32) if by_column else gene_number_dtype(minor)
            indices = read_indices(matrix["indices"], where=f"{where}/indices", limit=minor, dtype=dtype)
            if len(data) != len(indices):
                raise InputError(
                    "data and indices differ in length",
                    where=where,
                    found=f"{len(data)} and {len(indices)}",
                    hint="fetch the file again, or repair it",
                )
            indptr = read_pointers(matrix["indptr"], where=f"{where}/indptr", rows=major, stored=len(data))
            stored = csr_of(data, indices, indptr, (major, minor))
            return sparse.csr_matrix(stored.T.tocsr()) if by_column else stored


def read_genes(group: AnnDataGroup, key: str) -> pd.DataFrame:
    """Return the raw slide's gene table from ``var`` (of the raw part for ``raw/X``).

    The index is the name; where it is Ensembl ids and a column of symbols is there, that is the name.
    """
    var = group.frame("raw/var" if key == "raw/X" else "var")
    names: NDArray[np.object_] = var.index.to_numpy(dtype=object)
    is_ensembl = np.array([name.startswith("ENS") and bool(_ENSEMBL.fullmatch(name)) for name in names], dtype=bool)
    ids = _column(var, ENSEMBL_COLUMNS)
    if ids is None:
        ids = np.where(is_ensembl, names, "")
    if len(is_ensembl) and is_ensembl.mean() > 0.5:
        symbols = _column(var, SYMBOL_COLUMNS)
        names = names if symbols is None else np.where(symbols == "", names, symbols)
    types = _column(var, TYPE_COLUMNS)
    return gene_table(names, ids, np.full(len(var), "", dtype=object) if types is None else types)


def _column(table: pd.DataFrame, names: tuple[str, ...]) -> NDArray[np.object_] | None:
    for name in names:
        if name in table:
            column = table[name].astype(object)
            return column.where(column.notna(), "").astype(str).to_numpy(dtype=object)
    return None


def scale_factors(group: AnnDataGroup, *, first: Sequence[str] = ()) -> dict[str, float]:
    """Return the scale factors of the first library in ``uns["spatial"]``; empty where there are none.

    Parameters
    ----------
    first
        Libraries that go before the others.
    """
    libraries = group.keys("uns/spatial")
    for library in [*(name for name in first if name in libraries), *libraries]:
        key = f"uns/spatial/{library}/scalefactors"
        factors: dict[str, float] = {}
        for name in group.keys(key):
            try:
                factors[name] = float(group.read(f"{key}/{name}"))
            except (TypeError, ValueError, StpatchError):
                continue  # a note in words, not a factor
        if factors:
            return factors
    return {}
