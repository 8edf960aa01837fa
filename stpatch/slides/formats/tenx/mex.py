"""The matrix exchange (MEX) folder of 10x: ``matrix.mtx`` beside the names of its features and barcodes.

The stored matrix is genes x barcodes; entries by barcode, as 10x writes them, need one pass.
"""

from __future__ import annotations

import itertools
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
from stpatch.slides.formats.counts import Values, csr_of, fraction_notes, without_fractions
from stpatch.slides.formats.hdf5.files import faults
from stpatch.slides.formats.names import gene_table
from stpatch.slides.formats.tenx.matrix import TenxMatrix, check_sizes, no_genes
from stpatch.slides.formats.text.lines import arrow_stream, open_text, read_lines, split_line, text_fault

MATRIX_MTX = re.compile(r"(?P<prefix>.*?)matrix\.mtx(\.gz)?")
FEATURES = ("features.tsv.gz", "features.tsv", "genes.tsv.gz", "genes.tsv")
BARCODES = ("barcodes.tsv.gz", "barcodes.tsv")
_HEADERS = frozenset({"x", "v1", "barcode", "barcodes", "gene", "genes", "gene_id", "feature", "features", "id", ""})
"""First fields of a header that these files should not have."""
_ENTRY = re.compile(r"\d+ \d+ \S+")
"""An entry as 10x writes it; other writers leave more blanks, or tabs."""
LOOKED_AT = 64
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
    """Return the three files of a MEX folder, or of the ``.mtx`` file; names may share a prefix, and be gzipped."""
    if folder.is_file():
        return _beside(folder.parent, folder.name)
    found = sorted(item.name for item in folder.iterdir() if MATRIX_MTX.fullmatch(item.name))
    if not found:
        raise InputMissingError("the folder has no matrix", where=folder, expected="matrix.mtx or matrix.mtx.gz")
    if len(found) > 1:
        raise InputError(
            "the folder has several matrices", where=folder, found=", ".join(found), hint="keep one, or name its folder"
        )
    return _beside(folder, found[0])


def _beside(folder: Path, name: str) -> MexFiles:
    match = MATRIX_MTX.fullmatch(name)
    prefix = match["prefix"] if match else ""

    def one_of(names: tuple[str, ...]) -> Path:
        present = [folder / f"{prefix}{name}" for name in names if (folder / f"{prefix}{name}").is_file()]
        if not present:
            raise InputMissingError(
                "the matrix's folder is incomplete", where=folder, expected=" or ".join(f"{prefix}{n}" for n in names)
            )
        return present[0]

    return MexFiles(matrix=folder / name, features=one_of(FEATURES), barcodes=one_of(BARCODES))


def probe_mex(folder: Path) -> tuple[int, int, str]:
    """Return the numbers of barcodes and features and the software version of a MEX folder."""
    header = _mtx_header(mex_files(folder).matrix)
    return header.n_barcodes, header.n_genes, header.version


def read_mex_barcodes(folder: Path) -> NDArray[np.object_]:
    """Return the barcodes of a MEX folder in the matrix's order."""
    files = mex_files(folder)
    return _barcode_lines(files.barcodes, n=_mtx_header(files.matrix).n_barcodes)


def read_mex(folder: Path) -> TenxMatrix:
    """Read a MEX folder, the matrix text in blocks; one pass where entries come by barcode, as 10x writes them."""
    files = mex_files(folder)
    header = _mtx_header(files.matrix)
    genes = _feature_lines(files.features, n=header.n_genes)
    barcodes = _barcode_lines(files.barcodes, n=header.n_barcodes)
    shape = (header.n_barcodes, header.n_genes)
    check_sizes(folder, shape, barcodes, genes)
    with faults(files.matrix):
        others = _Others(no_genes(genes))
        counts = _mtx_by_barcode(files.matrix, header, others) or _mtx_scattered(files.matrix, header, others)
    notes = fraction_notes(others.left_out, genes["feature_type"])
    return TenxMatrix(
        counts=csr_of(*counts, shape), barcodes=barcodes, genes=genes, version=header.version, notes=notes
    )


class _Others:
    """Features that are no genes: fractional values of theirs become 0, and `left_out` says of which."""

    def __init__(self, others: NDArray[np.bool_]) -> None:
        self._others = others
        self._some = bool(others.any())
        self.left_out = np.zeros(len(others), bool)

    def __call__(self, gene: NDArray[np.int32], value: NDArray[Any]) -> NDArray[Any]:
        if not self._some:
            return value
        value, left_out = without_fractions(value, gene, self._others)
        self.left_out |= left_out
        return value


@dataclass(frozen=True, kw_only=True)
class _MtxHeader:
    n_genes: int
    n_barcodes: int
    n_stored: int
    n_lines: int
    is_real: bool
    is_plain: bool
    version: str


def _name_rows(path: Path, *, n: int) -> list[list[str]]:
    """Return the fields of each line; R's quotes, row numbers and header of its own making are taken off."""
    lines = read_lines(path)
    while lines and not lines[-1].strip():
        lines.pop()
    quoted = any('"' in line for line in lines[:2])
    if not quoted:
        rows = [line.split("\t") for line in lines]
        return rows[1:] if len(rows) == n + 1 and rows[0][0].lower() in _HEADERS else rows
    delimiter = (
        "\t" if any("\t" in line for line in lines[:2]) else "," if any('",' in line for line in lines[:2]) else " "
    )
    rows = [list(split_line(line, delimiter, where=path)) for line in lines]
    if len(rows) == n + 1 and rows[0][0].lower() in _HEADERS:
        rows = rows[1:]
    if all(len(row) > 1 and row[0] == str(i + 1) for i, row in enumerate(rows)):
        rows = [row[1:] for row in rows]
    return rows


def _barcode_lines(path: Path, *, n: int) -> NDArray[np.object_]:
    return np.array([row[0] for row in _name_rows(path, n=n)], dtype=object)


def _feature_lines(path: Path, *, n: int) -> pd.DataFrame:
    rows = _name_rows(path, n=n)
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
            entries = [entry.rstrip("\r\n") for entry in itertools.islice(file, LOOKED_AT)]
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise text_fault(path, error) from error
    match = re.fullmatch(r"%%matrixmarket\s+matrix\s+coordinate\s+(integer|unsigned-integer|real)\s+general", first)
    if match is None:
        raise InputError(
            "the file is not a sparse matrix of counts",
            where=f"{path}, line 1",
            found=repr(first[:100]),
            expected="%%MatrixMarket matrix coordinate integer (or real, unsigned-integer) general",
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
    words = len(entries[0].split()) if entries else 3
    if words > 3:
        raise InputError(
            "the matrix has several counts per entry: a Seq-Scope or NovaScope matrix, which is not read",
            where=f"{path}, line {n_lines + 1}",
            found=repr(entries[0][:100]),
            expected="gene, barcode and one count",
            hint="write one count per entry (such as the total), or a table of molecules: x, y, gene, count",
        )
    return _MtxHeader(
        n_genes=n_genes,
        n_barcodes=n_barcodes,
        n_stored=n_stored,
        n_lines=n_lines,
        is_real=match[1] == "real",
        is_plain=all(_ENTRY.fullmatch(entry) for entry in entries if entry),
        version=version,
    )


Entries = tuple[int, NDArray[np.int32], NDArray[np.int32], NDArray[Any]]


def _mtx_blocks(path: Path, header: _MtxHeader) -> Iterator[Entries]:
    """Yield (number of the first entry, gene, barcode, value) in blocks, genes and barcodes from 0 and in range."""
    import pyarrow as pa
    from pyarrow import csv

    if header.n_stored == 0:
        return
    if not header.is_plain:
        yield from _loose_blocks(path, header)
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


def _loose_blocks(path: Path, header: _MtxHeader) -> Iterator[Entries]:
    """Yield entries whose numbers are apart by tabs or several blanks, as other writers than 10x leave them."""
    start = 0
    names = ["gene", "barcode", "value"]
    with faults(path), open_text(path) as file:
        blocks = pd.read_csv(
            file, sep=r"\s+", header=None, names=names, skiprows=header.n_lines, chunksize=1 << 20, comment="%",
            dtype={"gene": np.int64, "barcode": np.int64, "value": np.float64}, index_col=False, keep_default_na=False,
        )  # fmt: skip
        for block in blocks:
            gene, barcode = (block[name].to_numpy() for name in names[:2])
            _check_range(path, gene, header.n_genes, "gene", start)
            _check_range(path, barcode, header.n_barcodes, "barcode", start)
            if start + len(block) > header.n_stored:
                raise InputError("the matrix has more entries than it says", where=path, expected=header.n_stored)
            yield start, (gene - 1).astype(np.int32), (barcode - 1).astype(np.int32), block["value"].to_numpy()
            start += len(block)
    if start != header.n_stored:
        raise InputError(
            "the matrix has fewer entries than it says: it is cut short",
            where=path,
            found=start,
            expected=header.n_stored,
            hint="fetch it again",
        )


def _check_range(path: Path, index: NDArray[Any], limit: int, what: str, start: int) -> None:
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


def _mtx_by_barcode(path: Path, header: _MtxHeader, others: _Others) -> Arrays | None:
    """Read a matrix whose entries come by barcode; None where they do not."""
    values = Values(header.n_stored)
    genes = np.empty(header.n_stored, np.int32)
    indptr = np.zeros(header.n_barcodes + 1, np.int64)
    last = 0
    for start, gene, barcode, value in _mtx_blocks(path, header):
        if barcode[0] < last or (np.diff(barcode) < 0).any():
            return None
        last = int(barcode[-1])
        values.put(slice(start, start + len(gene)), others(gene, value), where=path, offset=start)
        genes[start : start + len(gene)] = gene
        indptr[1:] += np.bincount(barcode, minlength=header.n_barcodes)
    np.cumsum(indptr, out=indptr)
    return values.array, genes, indptr


def _mtx_scattered(path: Path, header: _MtxHeader, others: _Others) -> Arrays:
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
        values.put(place, others(gene, value)[order], where=path, offset=start)
        genes[place] = gene[order]
        free += number
    return values.array, genes, indptr
