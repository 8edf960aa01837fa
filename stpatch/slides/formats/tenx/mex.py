"""The matrix exchange (MEX) folder of 10x: ``matrix.mtx`` beside the names of its features and barcodes.

The stored matrix is genes x barcodes; entries by barcode, as 10x writes them, need one pass.
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

from stpatch.errors import InputError, InputMissingError
from stpatch.slides.formats.counts import Values, csr_of
from stpatch.slides.formats.hdf5.files import faults
from stpatch.slides.formats.names import gene_table
from stpatch.slides.formats.tenx.matrix import TenxMatrix, check_sizes
from stpatch.slides.formats.text.lines import arrow_stream, open_text, read_lines, text_fault

MATRIX_MTX = re.compile(r"(?P<prefix>.*?)matrix\.mtx(\.gz)?")
FEATURES = ("features.tsv.gz", "features.tsv", "genes.tsv.gz", "genes.tsv")
BARCODES = ("barcodes.tsv.gz", "barcodes.tsv")
MEX_BLOCK = 1 << 24
"""Bytes of matrix text that are parsed together."""


@dataclass(frozen=True, kw_only=True)
class MexFiles:
    """The three files of a MEX folder."""

    matrix: Path
    features: Path
    barcodes: Path


def is_mex(path: Path) -> bool:
    """Whether `path` is a folder with a 10x ``matrix.mtx[.gz]``."""
    return path.is_dir() and any(MATRIX_MTX.fullmatch(item.name) for item in path.iterdir())


def mex_files(folder: Path) -> MexFiles:
    """Return the three files of a MEX folder; names may share a prefix, each may be gzipped."""
    found = sorted(item.name for item in folder.iterdir() if MATRIX_MTX.fullmatch(item.name))
    if not found:
        raise InputMissingError("the folder has no matrix", where=folder, expected="matrix.mtx or matrix.mtx.gz")
    if len(found) > 1:
        raise InputError(
            "the folder has several matrices", where=folder, found=", ".join(found), hint="keep one, or name its folder"
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


def read_mex_barcodes(folder: Path) -> NDArray[np.object_]:
    """Return the barcodes of a MEX folder in the matrix's order."""
    return np.array([line.split("\t")[0] for line in read_lines(mex_files(folder).barcodes)], dtype=object)


def read_mex(folder: Path) -> TenxMatrix:
    """Read a MEX folder, the matrix text in blocks; one pass where entries come by barcode, as 10x writes them."""
    files = mex_files(folder)
    header = _mtx_header(files.matrix)
    genes = _feature_lines(files.features)
    barcodes = read_mex_barcodes(folder)
    shape = (header.n_barcodes, header.n_genes)
    check_sizes(folder, shape, barcodes, genes)
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
            hint="fetch it again",
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
