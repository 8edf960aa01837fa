"""10x matrices: the HDF5 file (features or legacy genes), or the MEX folder.

The stored matrix is genes x barcodes by columns, which is barcodes x genes by rows: no transposition is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.errors import InputError
from stpatch.slides.formats.counts import (
    csr_of,
    fraction_notes,
    read_indices,
    read_pointers,
    read_values,
    without_fractions,
)
from stpatch.slides.formats.hdf5.files import attribute_text, child, faults, hdf5_file, is_hdf5, read_texts
from stpatch.slides.formats.names import gene_table
from stpatch.slides.formats.tenx.matrix import TenxMatrix, check_sizes, no_genes
from stpatch.slides.formats.tenx.mex import MATRIX_MTX, mex_files, probe_mex, read_mex, read_mex_barcodes


def is_tenx_h5(path: Path) -> bool:
    """Whether `path` is a 10x HDF5 matrix."""
    if not is_hdf5(path):
        return False
    with hdf5_file(path) as file:
        return _tenx_group(file) is not None


def tenx_files(path: Path) -> tuple[Path, ...]:
    """Return the files that `read_tenx` opens."""
    if _is_h5(path):
        return (path,)
    files = mex_files(path)
    return (files.matrix, files.features, files.barcodes)


def _is_h5(path: Path) -> bool:
    """Whether a matrix is a file and not a MEX, which is named by its folder or by its ``.mtx`` file."""
    return path.is_file() and MATRIX_MTX.fullmatch(path.name) is None


def probe_tenx(path: Path) -> tuple[int, int, str]:
    """Return the numbers of barcodes and features and the software version, from headers alone."""
    return probe_tenx_h5(path) if _is_h5(path) else probe_mex(path)


def read_barcodes(path: Path) -> NDArray[np.object_]:
    """Return the barcodes of a 10x matrix in its order, without the matrix."""
    if _is_h5(path):
        with hdf5_file(path) as file:
            return read_texts(matrix_group(file, path), "barcodes", path)
    return read_mex_barcodes(path)


def read_tenx(path: Path) -> TenxMatrix:
    """Read a 10x HDF5 file or MEX folder.

    Memory: the matrix (2 or 4 bytes a count, 4 an index) and one block.

    Raises
    ------
    InputError
        The file is damaged, a count is not a whole number, sizes do not agree, a barcode is given twice.
    """
    return read_tenx_h5(path) if _is_h5(path) else read_mex(path)


def probe_tenx_h5(path: Path) -> tuple[int, int, str]:
    """Return the numbers of barcodes and features and the software version of a 10x HDF5 file."""
    with hdf5_file(path) as file:
        group = matrix_group(file, path)
        n_genes, n_barcodes = matrix_shape(group, path)
        return n_barcodes, n_genes, attribute_text(file.attrs.get("software_version"))


def read_tenx_h5(path: Path) -> TenxMatrix:
    """Read a 10x HDF5 file: ``/matrix`` with features, or the legacy ``/<genome>`` with genes."""
    with hdf5_file(path) as file:
        group = matrix_group(file, path)
        n_genes, n_barcodes = matrix_shape(group, path)
        genes = read_features(group, path)
        barcodes = read_texts(group, "barcodes", path)
        check_sizes(path, (n_barcodes, n_genes), barcodes, genes)
        where = f"{path}, key {group.name}"
        with faults(where):
            stored, others = child(group, "data", path), no_genes(genes)
            indices = read_indices(child(group, "indices", path), where=f"{where}/indices", limit=n_genes)
            left_out = np.zeros(n_genes, bool)
            if stored.dtype.kind == "f" and others.any() and stored.shape == indices.shape:
                stored, left_out = without_fractions(np.asarray(stored[:]), indices, others)
            data = read_values(stored, where=f"{where}/data")
            if len(indices) != len(data):
                raise InputError(
                    "data and indices differ in length",
                    where=where,
                    found=f"{len(data)} and {len(indices)}",
                    hint="fetch the file again, or repair it",
                )
            indptr = read_pointers(
                child(group, "indptr", path), where=f"{where}/indptr", rows=n_barcodes, stored=len(data)
            )
        version = attribute_text(file.attrs.get("software_version"))
    counts = csr_of(data, indices, indptr, (n_barcodes, n_genes))
    notes = fraction_notes(left_out, genes["feature_type"])
    return TenxMatrix(counts=counts, barcodes=barcodes, genes=genes, version=version, notes=notes)


def _tenx_group(file: Any) -> Any:
    """Return the matrix's group, None where there is none, the first of several genomes."""
    for name in ["matrix", *file]:
        group = file.get(name)
        if hasattr(group, "keys") and {"barcodes", "indptr"} <= set(group):
            return group
    return None


def matrix_group(file: Any, path: Path) -> Any:
    """Return the group of a 10x HDF5 file's only matrix."""
    group = _tenx_group(file)
    if group is None:
        raise InputError(
            "the file is not a 10x matrix",
            where=path,
            found=f"keys {', '.join(sorted(file)[:20]) or 'none'}",
            expected="/matrix (or a legacy /<genome>) with barcodes, data, indices, indptr, shape",
        )
    if group.name != "/matrix":
        genomes = [name for name in file if hasattr(file[name], "keys") and "barcodes" in file[name]]
        if len(genomes) > 1:
            raise InputError(
                "the legacy 10x file holds several genomes",
                where=path,
                found=", ".join(genomes),
                hint="write each genome's matrix to a file of its own",
            )
    return group


def matrix_shape(group: Any, path: Path) -> tuple[int, int]:
    """Return (genes, barcodes) of a 10x HDF5 group."""
    values = child(group, "shape", path)
    where = f"{path}, key {group.name}/shape"
    with faults(where):
        numbers = np.asarray(values[:], dtype=np.float64)
        if numbers.shape != (2,) or (numbers < 0).any() or (numbers != np.rint(numbers)).any():
            raise InputError(
                "shape is not two whole numbers", where=where, found=numbers.tolist(), expected="features and barcodes"
            )
    return int(numbers[0]), int(numbers[1])


def read_features(group: Any, path: Path) -> pd.DataFrame:
    """Read the gene table of a 10x HDF5 group."""
    if "features" in group:
        features = child(group, "features", path)
        ids = read_texts(features, "id", path)
        names = read_texts(features, "name", path) if "name" in features else ids
        types = read_texts(features, "feature_type", path) if "feature_type" in features else np.full(len(ids), "")
    else:
        ids = read_texts(group, "genes", path)
        names = read_texts(group, "gene_names", path) if "gene_names" in group else ids
        types = np.full(len(ids), "")
    if not len(ids) == len(names) == len(types):
        raise InputError(
            "the feature columns differ in length",
            where=f"{path}, key {group.name}",
            found=f"{len(ids)} ids, {len(names)} names, {len(types)} types",
            hint="fetch the file again, or repair it",
        )
    return gene_table(names, ids, types)
