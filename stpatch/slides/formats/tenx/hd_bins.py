"""The bins of a Visium HD matrix: their array indices by barcode, their places, and their sums to coarser bins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stpatch.errors import InputError
from stpatch.slides.formats.counts import (
    as_counts,
    csr_of,
    fraction_notes,
    read_indices,
    read_pointers,
    read_values,
    without_fractions,
)
from stpatch.slides.formats.hdf5.files import child, hdf5_file
from stpatch.slides.formats.places import check_finite
from stpatch.slides.formats.tenx.matrix import TenxMatrix, no_genes
from stpatch.slides.formats.tenx.positions import COLUMNS, read_positions
from stpatch.slides.formats.tenx.read import matrix_group, matrix_shape, probe_tenx, read_features, read_tenx

LARGEST = 1 << 14
"""Bins along a side that no array passes (11 mm are 5,500 bins of 2 um)."""

STRIP = 1 << 23
"""Stored values that are summed to coarser bins together."""


@dataclass(frozen=True, kw_only=True)
class Bins:
    """Bins of a matrix: (n, 2) array indices by barcode, coordinates and tissue by position."""

    array: NDArray[np.int32]
    xy: NDArray[np.float64]
    in_tissue: NDArray[np.bool_]


def parse_barcodes(barcodes: NDArray[np.bytes_], *, size_um: float, where: object) -> NDArray[np.int32]:
    """Return (n, 2) array indices from ``s_008um_00012_00034-1``.

    Raises
    ------
    InputError
        A barcode has another form or another bin size.
    """
    width = barcodes.dtype.itemsize
    head = f"s_{int(size_um):03d}um_".encode()
    if not len(barcodes):
        return np.empty((0, 2), np.int32)
    letters = np.ascontiguousarray(barcodes).view(np.uint8).reshape(len(barcodes), width)
    good = np.zeros(len(barcodes), bool)
    indices = np.zeros((len(barcodes), 2), np.int32)
    if width >= len(head) + 11:
        first = len(head)
        good = (letters[:, :first] == np.frombuffer(head, np.uint8)).all(axis=1)
        good &= letters[:, first + 5] == ord("_")
        for column, start in enumerate((first, first + 6)):
            digits = letters[:, start : start + 5].astype(np.int32) - ord("0")
            good &= ((digits >= 0) & (digits <= 9)).all(axis=1)
            indices[:, column] = digits @ np.array([10000, 1000, 100, 10, 1], np.int32)
    if not good.all():
        row = int(np.argmin(good))
        raise InputError(
            "a barcode is none of these bins",
            where=f"{where}, row {row}",
            found=barcodes[row].decode("utf-8", "replace"),
            expected=f"{head.decode()}<row>_<column>-1",
        )
    return indices


def bins_of(barcodes: NDArray[Any], positions: Path, matrix: Path, *, size_um: float) -> Bins:
    """Join bins to their positions by array indices, which both sides' barcodes spell."""
    texts = barcodes if barcodes.dtype.kind == "S" else np.array([text.encode() for text in barcodes], dtype="S")
    array = parse_barcodes(texts, size_um=size_um, where=matrix)
    columns = int(array[:, 1].max(initial=0)) + 1
    rows = int(array[:, 0].max(initial=0)) + 1
    if max(rows, columns) > LARGEST:
        raise InputError(
            "a bin lies outside every Visium HD array",
            where=matrix,
            found=f"{rows} rows, {columns} columns",
            hint="export the file anew from the vendor's software, or fetch it again",
        )
    bin_at = np.full(rows * columns, -1, np.int32)
    bin_at[array[:, 0].astype(np.int64) * columns + array[:, 1]] = np.arange(len(array), dtype=np.int32)
    if np.count_nonzero(bin_at >= 0) != len(array):
        raise InputError("a barcode is given twice", where=matrix, expected="unique barcodes")
    xy: NDArray[np.float64] = np.full((len(array), 2), np.nan)
    in_tissue = np.zeros(len(array), bool)
    seen = np.zeros(len(array), bool)
    for place, tissue, point in _position_blocks(positions, size_um=size_um):
        inside = (place[:, 0] < rows) & (place[:, 1] < columns)
        number = bin_at[place[inside, 0].astype(np.int64) * columns + place[inside, 1]]
        has = number >= 0
        number = number[has]
        if seen[number].any() or len(np.unique(number)) != len(number):
            raise InputError(
                "a bin has two positions",
                where=positions,
                hint="export the file anew from the vendor's software, or fetch it again",
            )
        seen[number] = True
        xy[number] = point[inside][has]
        in_tissue[number] = tissue[inside][has]
    if not seen.all():
        first = int(np.argmin(seen))
        raise InputError(
            "bins of the matrix have no position",
            where=f"{positions}, for {matrix.name}",
            found=f"{int((~seen).sum())} of {len(seen)} bins, such as {texts[first].decode()}",
            hint="put the positions of this very slide and bin size into its spatial folder",
        )
    return Bins(array=array, xy=xy, in_tissue=in_tissue)


def some_positions(path: Path, *, size_um: float, most: int = 1 << 21) -> Bins:
    """Return the first positions of a table, in whole blocks of its file, up to about `most`."""
    blocks = []
    n = 0
    for block in _position_blocks(path, size_um=size_um):
        blocks.append(block)
        n += len(block[0])
        if n >= most:
            break
    if not blocks:
        raise InputError("the positions table is empty", where=path, hint="fetch the file again, or mend it")
    array, in_tissue, xy = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return Bins(array=array, xy=xy, in_tissue=in_tissue)


def _position_blocks(
    path: Path, *, size_um: float
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.bool_], NDArray[np.float64]]]:
    """Yield (array indices, in tissue, xy) of a positions table in blocks, checked against the barcodes' own text."""
    if path.suffix != ".parquet":
        table = read_positions(path)
        texts = np.array([text.encode() for text in table.barcodes], dtype="S")
        _check_spelled(parse_barcodes(texts, size_um=size_um, where=path), table.array, texts, path, 0)
        yield table.array, table.in_tissue, table.xy
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    start = 0
    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=1 << 20, columns=list(COLUMNS)):
            texts = _fixed_width(batch.column("barcode"), path, start)
            numbers = {name: _numbers(batch.column(name), name, path, start) for name in COLUMNS[1:]}
            array = np.column_stack([numbers["array_row"], numbers["array_col"]])
            _check_spelled(parse_barcodes(texts, size_um=size_um, where=path), array, texts, path, start)
            tissue = numbers["in_tissue"]
            if not np.isin(tissue, (0, 1)).all():
                raise InputError(
                    "in_tissue is neither 0 nor 1",
                    where=f"{path}, from row {start}",
                    hint="export the file anew from the vendor's software, or fetch it again",
                )
            xy = np.column_stack([numbers["pxl_col_in_fullres"], numbers["pxl_row_in_fullres"]])
            check_finite(xy, where=path)
            yield array.astype(np.int32), tissue == 1, xy
            start += batch.num_rows
    except (pa.ArrowException, OSError, KeyError) as error:
        raise InputError(
            "the positions table is not readable parquet: it is damaged or lacks a column",
            where=path,
            found=" ".join(str(error).split())[:300],
            hint="fetch the file again, or repair it",
        ) from error


def _fixed_width(column: Any, path: Path, start: int) -> NDArray[np.bytes_]:
    """Return an arrow text column as fixed-width bytes without making an object a row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pc.cast(column, pa.binary())
    if texts.null_count:
        raise InputError(
            "a barcode is missing",
            where=f"{path}, from row {start}",
            hint="export the file anew from the vendor's software, or fetch it again",
        )
    if not len(texts):
        return np.empty(0, "S1")
    widths = pc.min_max(pc.binary_length(texts)).as_py()
    if widths["min"] != widths["max"] or widths["max"] == 0:
        return np.array(texts.to_pylist(), dtype="S")
    offsets = np.frombuffer(texts.buffers()[1], np.int32)
    width, first = widths["max"], int(offsets[texts.offset])
    letters = np.frombuffer(texts.buffers()[2], np.uint8)[first : first + len(texts) * width]
    return letters.view(f"S{width}")


def _numbers(column: Any, name: str, path: Path, start: int) -> NDArray[np.float64]:
    try:
        values: NDArray[np.float64] = column.to_numpy(zero_copy_only=False).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} is not a number",
            where=f"{path}, from row {start}",
            found=error,
            hint="export the file anew from the vendor's software, or fetch it again",
        ) from error
    bad = ~np.isfinite(values)
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(
            f"{name} is not a finite number",
            where=f"{path}, row {start + row}",
            found=values[row],
            hint="export the file anew from the vendor's software, or fetch it again",
        )
    return values


def _check_spelled(
    spelled: NDArray[np.int32], array: NDArray[Any], texts: NDArray[np.bytes_], path: Path, start: int
) -> None:
    wrong = (spelled != array).any(axis=1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(
            "array_row and array_col are not what the barcode says",
            where=f"{path}, row {start + row}",
            found=f"array_row, array_col = {array[row].tolist()}",
            expected=texts[row].decode(),
        )


def read_coarse(path: Path, positions: Path, *, factor: int, size_um: float) -> tuple[TenxMatrix, Bins]:
    """Read a matrix summed to bins `factor` times as wide: array indices are divided, counts summed.

    A coarse bin is in tissue where one of its bins is; its coordinates are the mean of its bins'. An HDF5 matrix whose
    bins come by row, as Space Ranger writes them, is summed strip by strip: the fine matrix is never held whole.
    """
    notes: tuple[str, ...]
    if path.is_dir():
        matrix = read_tenx(path)
        bins = bins_of(matrix.barcodes, positions, path, size_um=size_um)
        columns, coarse = _coarse_of(bins.array, factor)
        pieces = iter([_summed(matrix.counts, coarse)])
        genes, version, notes = matrix.genes, matrix.version, matrix.notes
        counts, numbers = _joined(pieces, matrix.counts.shape[1])
    else:
        version = probe_tenx(path)[2]
        with hdf5_file(path) as file:
            group = matrix_group(file, path)
            n_genes, n_bins = matrix_shape(group, path)
            genes = read_features(group, path)
            barcodes = np.asarray(child(group, "barcodes", path)[:]).astype("S")
            if (n_bins, n_genes) != (len(barcodes), len(genes)):
                raise InputError("the matrix and its names differ in size", where=path, expected=(n_bins, n_genes))
            bins = bins_of(barcodes, positions, path, size_um=size_um)
            columns, coarse = _coarse_of(bins.array, factor)
            others = _Others(mask=no_genes(genes), left_out=np.zeros(n_genes, bool))
            counts, numbers = _joined(_strips(group, path, coarse, columns=columns, others=others), n_genes)
            notes = fraction_notes(others.left_out, genes["feature_type"])
    fine = np.searchsorted(numbers, coarse)
    members = np.bincount(fine, minlength=len(numbers))
    array = np.column_stack(np.divmod(numbers, columns)).astype(np.int32)
    xy = np.column_stack([np.bincount(fine, weights=bins.xy[:, i], minlength=len(numbers)) for i in (0, 1)])
    in_tissue = np.bincount(fine, weights=bins.in_tissue, minlength=len(numbers)) > 0
    size = round(size_um * factor)
    ids = np.array([f"s_{size:03d}um_{row:05d}_{column:05d}-1" for row, column in array.tolist()], dtype=object)
    coarse_bins = Bins(array=array, xy=xy / np.maximum(members, 1)[:, None], in_tissue=in_tissue)
    return TenxMatrix(counts=counts, barcodes=ids, genes=genes, version=version, notes=notes), coarse_bins


def _coarse_of(array: NDArray[np.int32], factor: int) -> tuple[int, NDArray[np.int64]]:
    """Return the number of coarse columns and (n,) flat coarse numbers, row by row."""
    coarse = array.astype(np.int64) // factor
    columns = int(coarse[:, 1].max(initial=0)) + 1
    return columns, coarse[:, 0] * columns + coarse[:, 1]


Piece = tuple[NDArray[np.int64], sparse.csr_matrix]


@dataclass(frozen=True, kw_only=True)
class _Others:
    """Which of (features,) features are no genes, and which of those held fractions and were left out."""

    mask: NDArray[np.bool_]
    left_out: NDArray[np.bool_]

    def values(self, stored: Any, indices: NDArray[Any]) -> Any:
        """Return stored values without the fractions of features that are no genes."""
        if stored.dtype.kind != "f" or not self.mask.any():
            return stored
        values, left_out = without_fractions(stored, indices, self.mask)
        self.left_out[left_out] = True
        return values


def _strips(group: Any, path: Path, coarse: NDArray[np.int64], *, columns: int, others: _Others) -> Iterator[Piece]:
    """Yield sums of strips of whole coarse rows; the whole matrix as one strip where bins do not come by row."""
    where = f"{path}, key {group.name}"
    data, indices = child(group, "data", path), child(group, "indices", path)
    indptr = read_pointers(
        child(group, "indptr", path), where=f"{where}/indptr", rows=len(coarse), stored=int(data.shape[0])
    )
    if indices.shape != data.shape:
        raise InputError(
            "data and indices differ in length",
            where=where,
            found=f"{data.shape} and {indices.shape}",
            hint="fetch the file again, or repair it",
        )
    rows = coarse // columns
    cuts = np.array([0, len(coarse)])
    if (np.diff(rows) >= 0).all():
        cuts = np.concatenate([[0], np.flatnonzero(np.diff(rows)) + 1, [len(coarse)]])
    start = 0
    for i in range(1, len(cuts)):
        is_last = i == len(cuts) - 1
        if not is_last and indptr[cuts[i + 1]] - indptr[cuts[start]] <= STRIP:
            continue
        first, last = int(cuts[start]), int(cuts[i])
        a, b = int(indptr[first]), int(indptr[last])
        features = read_indices(indices[a:b], where=f"{where}/indices", limit=len(others.mask))
        block = csr_of(
            read_values(others.values(data[a:b], features), where=f"{where}/data"),
            features,
            indptr[first : last + 1] - a,
            (last - first, len(others.mask)),
        )
        yield _summed(block, coarse[first:last])
        start = i


def _summed(block: sparse.csr_matrix, coarse: NDArray[np.int64]) -> Piece:
    """Return the sorted coarse numbers of a block's rows and the sums of the rows of each."""
    numbers, inverse = np.unique(coarse, return_inverse=True)
    ones = np.ones(len(coarse), np.int64)
    adder = sparse.csr_matrix((ones, (inverse, np.arange(len(coarse)))), shape=(len(numbers), len(coarse)))
    return numbers, sparse.csr_matrix(adder @ block)


def _joined(pieces: Iterator[Piece], n_genes: int) -> tuple[sparse.csr_matrix, NDArray[np.int64]]:
    numbers: list[NDArray[np.int64]] = []
    data: list[NDArray[Any]] = []
    indices: list[NDArray[np.int32]] = []
    lengths: list[NDArray[np.int64]] = []
    for number, block in pieces:
        numbers.append(number)
        data.append(as_counts(block.data, where="sums"))
        indices.append(block.indices.astype(np.int32, copy=False))
        lengths.append(np.diff(block.indptr).astype(np.int64))
    all_numbers = np.concatenate(numbers)
    indptr = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    joined = np.concatenate(indices)
    indices.clear()
    return csr_of(np.concatenate(data), joined, indptr, (len(all_numbers), n_genes)), all_numbers
