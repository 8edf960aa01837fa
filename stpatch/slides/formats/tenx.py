"""10x matrices: the HDF5 file (features or legacy genes) and the matrix exchange (MEX) folder.

The stored matrix is genes x barcodes by columns, which is barcodes x genes by rows: no transposition is needed.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from stpatch.errors import InputError, InputMissingError
from stpatch.slides.formats.counts import Values, csr_of, read_indices, read_pointers, read_values
from stpatch.slides.formats.hdf5 import attribute_text, child, faults, hdf5_file, is_hdf5, read_texts
from stpatch.slides.formats.names import check_unique, gene_table
from stpatch.slides.formats.text import arrow_stream, open_text, read_lines, text_fault

MATRIX_MTX = re.compile(r"(?P<prefix>.*?)matrix\.mtx(\.gz)?")
FEATURES = ("features.tsv.gz", "features.tsv", "genes.tsv.gz", "genes.tsv")
BARCODES = ("barcodes.tsv.gz", "barcodes.tsv")
MEX_BLOCK = 1 << 24
"""Bytes of matrix text that are parsed together."""


@dataclass(frozen=True, kw_only=True)
class TenxMatrix:
    """A 10x matrix.

    Attributes
    ----------
    counts
        CSR, (barcodes, features), unsigned integers.
    barcodes
        (barcodes,) str.
    genes
        One row a feature: ``name``, ``ensembl_id`` (the feature's id as it is), ``feature_type`` ("" where unknown).
    version
        Software that wrote it, "" where unknown.
    """

    counts: sparse.csr_matrix
    barcodes: NDArray[np.object_]
    genes: pd.DataFrame
    version: str = ""


@dataclass(frozen=True, kw_only=True)
class MexFiles:
    """The three files of a MEX folder."""

    matrix: Path
    features: Path
    barcodes: Path


def is_tenx_h5(path: Path) -> bool:
    """Whether `path` is a 10x HDF5 matrix."""
    if not is_hdf5(path):
        return False
    with hdf5_file(path) as file:
        return _tenx_group(file) is not None


def is_mex(path: Path) -> bool:
    """Whether `path` is a folder with a 10x ``matrix.mtx[.gz]``."""
    return path.is_dir() and any(MATRIX_MTX.fullmatch(item.name) for item in path.iterdir())


def tenx_files(path: Path) -> tuple[Path, ...]:
    """Return the files that `read_tenx` opens."""
    if path.is_file():
        return (path,)
    files = mex_files(path)
    return (files.matrix, files.features, files.barcodes)


def probe_tenx(path: Path) -> tuple[int, int, str]:
    """Return the numbers of barcodes and features and the software version, from headers alone."""
    return probe_tenx_h5(path) if path.is_file() else probe_mex(path)


def read_tenx(path: Path) -> TenxMatrix:
    """Read a 10x HDF5 file or MEX folder.

    Memory: the matrix (2 or 4 bytes a count, 4 an index) and one block.

    Raises
    ------
    InputError
        The file is damaged, a count is no whole number, sizes do not agree, a barcode is given twice.
    """
    return read_tenx_h5(path) if path.is_file() else read_mex(path)


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
        _check_sizes(path, (n_barcodes, n_genes), barcodes, genes)
        where = f"{path}, key {group.name}"
        with faults(where):
            data = read_values(child(group, "data", path), where=f"{where}/data")
            indices = read_indices(child(group, "indices", path), where=f"{where}/indices", limit=n_genes)
            if len(indices) != len(data):
                raise InputError(
                    "data and indices differ in length", where=where, found=f"{len(data)} and {len(indices)}"
                )
            indptr = read_pointers(
                child(group, "indptr", path), where=f"{where}/indptr", rows=n_barcodes, stored=len(data)
            )
        version = attribute_text(file.attrs.get("software_version"))
    counts = csr_of(data, indices, indptr, (n_barcodes, n_genes))
    return TenxMatrix(counts=counts, barcodes=barcodes, genes=genes, version=version)


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
            "the file is no 10x matrix",
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
                mend="write each genome's matrix to a file of its own",
            )
    return group


def matrix_shape(group: Any, path: Path) -> tuple[int, int]:
    """Return (genes, barcodes) of a 10x HDF5 group."""
    values = child(group, "shape", path)
    where = f"{path}, key {group.name}/shape"
    with faults(where):
        numbers = np.asarray(values[:], dtype=np.float64)
        if numbers.shape != (2,) or (numbers < 0).any() or (numbers != np.rint(numbers)).any():
            raise InputError("shape is not two whole numbers", where=where, found=numbers.tolist())
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
        )
    return gene_table(names, ids, types)


def _check_sizes(where: object, shape: tuple[int, int], barcodes: NDArray[np.object_], genes: pd.DataFrame) -> None:
    found = (len(barcodes), len(genes))
    if found != shape:
        raise InputError(
            "the matrix and its names differ in size",
            where=where,
            found=f"{found[0]} barcodes, {found[1]} features",
            expected=f"{shape[0]} barcodes, {shape[1]} features",
        )
    check_unique(barcodes, what="a barcode", where=where)


def mex_files(folder: Path) -> MexFiles:
    """Return the three files of a MEX folder; names may share a prefix, each may be gzipped."""
    found = sorted(item.name for item in folder.iterdir() if MATRIX_MTX.fullmatch(item.name))
    if not found:
        raise InputMissingError("the folder has no matrix", where=folder, expected="matrix.mtx or matrix.mtx.gz")
    if len(found) > 1:
        raise InputError(
            "the folder has several matrices", where=folder, found=", ".join(found), mend="keep one, or name its folder"
        )
    match = MATRIX_MTX.fullmatch(found[0])
    prefix = match["prefix"] if match else ""

    def one_of(names: tuple[str, ...]) -> Path:
        present = [folder / f"{prefix}{name}" for name in names if (folder / f"{prefix}{name}").is_file()]
        if not present:
            raise InputMissingError(
                "the matrix's folder is incomplete", where=folder, expected=" or ".join(f"{prefix}{n}" for n in names)
            )
        return present[0]

    return MexFiles(matrix=folder / found[0], features=one_of(FEATURES), barcodes=one_of(BARCODES))


def probe_mex(folder: Path) -> tuple[int, int, str]:
    """Return the numbers of barcodes and features and the software version of a MEX folder."""
    header = _mtx_header(mex_files(folder).matrix)
    return header.n_barcodes, header.n_genes, header.version


def read_mex(folder: Path) -> TenxMatrix:
    """Read a MEX folder, the matrix text in blocks; one pass where entries come by barcode, as 10x writes them."""
    files = mex_files(folder)
    header = _mtx_header(files.matrix)
    genes = _feature_lines(files.features)
    barcodes = np.array([line.split("\t")[0] for line in read_lines(files.barcodes)], dtype=object)
    shape = (header.n_barcodes, header.n_genes)
    _check_sizes(folder, shape, barcodes, genes)
    with faults(files.matrix):
        counts = _mtx_by_barcode(files.matrix, header) or _mtx_scattered(files.matrix, header)
    return TenxMatrix(counts=csr_of(*counts, shape), barcodes=barcodes, genes=genes, version=header.version)


@dataclass(frozen=True, kw_only=True)
class _MtxHeader:
    n_genes: int
    n_barcodes: int
    n_stored: int
    n_lines: int
    is_real: bool
    version: str


def _feature_lines(path: Path) -> pd.DataFrame:
    rows = [line.split("\t") for line in read_lines(path)]
    ids = [row[0] for row in rows]
    names = [row[1] if len(row) > 1 else row[0] for row in rows]
    return gene_table(names, ids, [row[2] if len(row) > 2 else "" for row in rows])


def _mtx_header(path: Path) -> _MtxHeader:
    version, n_lines, first = "", 0, ""
    try:
        with open_text(path) as file:
            for line in file:
                n_lines += 1
                if n_lines == 1:
                    first = line.strip().lower()
                elif line.startswith("%"):
                    match = re.search(r'"software_version"\s*:\s*"([^"]*)"', line)
                    version = match[1] if match else version
                elif line.strip():
                    break
            else:
                line = ""
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise text_fault(path, error) from error
    match = re.fullmatch(r"%%matrixmarket\s+matrix\s+coordinate\s+(integer|real)\s+general", first)
    if match is None:
        raise InputError(
            "the file is no sparse matrix of numbers",
            where=f"{path}, line 1",
            found=repr(first[:100]),
            expected="%%MatrixMarket matrix coordinate integer general",
        )
    sizes = line.split()
    if len(sizes) != 3 or not all(text.isdecimal() for text in sizes):
        raise InputError(
            "the matrix has no size line",
            where=f"{path}, line {n_lines}",
            found=repr(line.strip()[:100]),
            expected="genes, barcodes and entries",
        )
    n_genes, n_barcodes, n_stored = map(int, sizes)
    return _MtxHeader(
        n_genes=n_genes,
        n_barcodes=n_barcodes,
        n_stored=n_stored,
        n_lines=n_lines,
        is_real=match[1] == "real",
        version=version,
    )


Entries = tuple[int, NDArray[np.int32], NDArray[np.int32], NDArray[Any]]


def _mtx_blocks(path: Path, header: _MtxHeader) -> Iterator[Entries]:
    """Yield (number of the first entry, gene, barcode, value) in blocks, genes and barcodes from 0 and in range."""
    import pyarrow as pa
    from pyarrow import csv

    if header.n_stored == 0:
        return
    value_type = pa.float64() if header.is_real else pa.int64()
    try:
        with arrow_stream(path) as stream:
            blocks = csv.open_csv(
                stream,
                csv.ReadOptions(
                    column_names=["gene", "barcode", "value"], skip_rows=header.n_lines, block_size=MEX_BLOCK
                ),
                csv.ParseOptions(delimiter=" ", quote_char=False),
                csv.ConvertOptions(
                    column_types={"gene": pa.int32(), "barcode": pa.int32(), "value": value_type}, null_values=[]
                ),
            )
            start = 0
            for block in blocks:
                if not len(block):
                    continue
                gene, barcode, value = (block.column(i).to_numpy(zero_copy_only=False) for i in range(3))
                _check_range(path, gene, header.n_genes, "gene", start)
                _check_range(path, barcode, header.n_barcodes, "barcode", start)
                if start + len(gene) > header.n_stored:
                    raise InputError("the matrix has more entries than it says", where=path, expected=header.n_stored)
                yield start, gene - 1, barcode - 1, value
                start += len(gene)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise text_fault(path, error) from error
    if start != header.n_stored:
        raise InputError(
            "the matrix has fewer entries than it says: it is cut short",
            where=path,
            found=start,
            expected=header.n_stored,
            mend="fetch it again",
        )


def _check_range(path: Path, index: NDArray[np.int32], limit: int, what: str, start: int) -> None:
    bad = (index < 1) | (index > limit)
    if bad.any():
        first = int(np.argmax(bad))
        raise InputError(
            f"a {what} number is outside the matrix",
            where=f"{path}, entry {start + first + 1}",
            found=index[first],
            expected=f"1 to {limit}",
        )


Arrays = tuple[NDArray[Any], NDArray[np.int32], NDArray[np.int64]]


def _mtx_by_barcode(path: Path, header: _MtxHeader) -> Arrays | None:
    """Read a matrix whose entries come by barcode; None where they do not."""
    values = Values(header.n_stored)
    genes = np.empty(header.n_stored, np.int32)
    indptr = np.zeros(header.n_barcodes + 1, np.int64)
    last = 0
    for start, gene, barcode, value in _mtx_blocks(path, header):
        if barcode[0] < last or (np.diff(barcode) < 0).any():
            return None
        last = int(barcode[-1])
        values.put(slice(start, start + len(gene)), value, where=path, offset=start)
        genes[start : start + len(gene)] = gene
        indptr[1:] += np.bincount(barcode, minlength=header.n_barcodes)
    np.cumsum(indptr, out=indptr)
    return values.array, genes, indptr


def _mtx_scattered(path: Path, header: _MtxHeader) -> Arrays:
    """Read a matrix whose entries come in any order, in two passes: count, then place."""
    indptr = np.zeros(header.n_barcodes + 1, np.int64)
    for _, _, barcode, _ in _mtx_blocks(path, header):
        indptr[1:] += np.bincount(barcode, minlength=header.n_barcodes)
    np.cumsum(indptr, out=indptr)
    values = Values(header.n_stored)
    genes = np.empty(header.n_stored, np.int32)
    free = indptr[:-1].copy()
    for start, gene, barcode, value in _mtx_blocks(path, header):
        order = np.argsort(barcode, kind="stable")
        ordered = barcode[order]
        number = np.bincount(barcode, minlength=header.n_barcodes)
        rank = np.arange(len(ordered)) - (np.cumsum(number) - number)[ordered]
        place = free[ordered] + rank
        values.put(place, value[order], where=path, offset=start)
        genes[place] = gene[order]
        free += number
    return values.array, genes, indptr
