"""Write simulated slides as their vendors would: Space Ranger folder, legacy ST tables, AnnData file."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from stpatch.demo.genes import ensembl_ids
from stpatch.storage import atomic_path, write_bytes

VISIUM_UM = 100.0
"""Distance of two spots in a Visium row."""
_UM_PER_PIXEL = 0.5
_MARGIN = 900
"""Pixels between the image's edge and the first spot."""


@dataclass(frozen=True, kw_only=True)
class SimulatedSlide:
    """One slide before it takes a vendor's form.

    Attributes
    ----------
    slide_id
        Name of the slide.
    array
        (places, 2) int64, (array_row, array_col) of every place of the array, tissue or not.
    inside
        (places,) bool, whether there is tissue.
    counts
        (places inside, genes) int32.
    genes
        (genes,) symbols.
    domain
        (places inside,) names of the domains.
    """

    slide_id: str
    array: NDArray[np.int64]
    inside: NDArray[np.bool_]
    counts: NDArray[np.int32]
    genes: list[str]
    domain: list[str]


def write_visium(folder: Path, slide: SimulatedSlide) -> tuple[Path, list[str]]:
    """Write a Space Ranger 2 folder: filtered matrix in HDF5, positions with header, scale factors.

    Returns
    -------
    tuple
        The slide's path, and the ids of the spots in tissue.
    """
    outs = folder / slide.slide_id / "outs"
    ids = _barcodes(len(slide.array))
    pixel_col = np.rint(_MARGIN + slide.array[:, 1] * (VISIUM_UM / 2 / _UM_PER_PIXEL)).astype(np.int64)
    pixel_row = np.rint(_MARGIN + slide.array[:, 0] * (VISIUM_UM * np.sqrt(3) / 2 / _UM_PER_PIXEL)).astype(np.int64)
    columns = [slide.inside.astype(np.int64), *slide.array.T, pixel_row, pixel_col]
    header = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
    rows = ([name, *values] for name, *values in zip(ids, *(column.tolist() for column in columns), strict=True))
    write_bytes(outs / "spatial" / "tissue_positions.csv", _table(header, rows, ",").encode())
    scales = {
        "spot_diameter_fullres": 55 / _UM_PER_PIXEL,
        "fiducial_diameter_fullres": 89 / _UM_PER_PIXEL,
        "tissue_hires_scalef": 0.1,
        "tissue_lowres_scalef": 0.03,
    }
    write_bytes(outs / "spatial" / "scalefactors_json.json", json.dumps(scales).encode())
    in_tissue = [name for name, here in zip(ids, slide.inside, strict=True) if here]
    with atomic_path(outs / "filtered_feature_bc_matrix.h5") as path:
        _write_tenx(path, slide, in_tissue)
    return outs, in_tissue


def _write_tenx(path: Path, slide: SimulatedSlide, barcodes: list[str]) -> None:
    """Write a 10x matrix: genes x barcodes, compressed by barcode (so, our rows)."""
    data, indices, indptr = _compressed(slide.counts)
    n_genes = len(slide.genes)
    text = {
        "barcodes": barcodes,
        "features/id": ensembl_ids(slide.genes),
        "features/name": slide.genes,
        "features/feature_type": ["Gene Expression"] * n_genes,
        "features/genome": ["simulated"] * n_genes,
        "features/_all_tag_keys": ["genome"],
    }
    with h5py.File(path, "w", locking=False) as file:
        file.attrs["filetype"] = "matrix"
        file.attrs["software_version"] = "spaceranger-2.1.0"
        file.attrs["version"] = 2
        matrix = file.create_group("matrix")
        matrix.create_dataset("data", data=data, compression="gzip")
        matrix.create_dataset("indices", data=indices.astype(np.int64), compression="gzip")
        matrix.create_dataset("indptr", data=indptr)
        matrix.create_dataset("shape", data=np.array([n_genes, len(barcodes)], dtype=np.int32))
        for name, values in text.items():
            matrix.create_dataset(name, data=np.array(values, dtype="S"), compression="gzip")


def write_st(folder: Path, slide: SimulatedSlide) -> tuple[Path, Path, list[str]]:
    """Write legacy ST tables: counts (spots named ``XxY``) and the selection of spots under tissue.

    Returns
    -------
    tuple
        The counts' path, the selection's path, and the ids of the spots in tissue.
    """
    places = [f"{col}x{row}" for row, col in slide.array.tolist()]
    in_tissue = [name for name, here in zip(places, slide.inside, strict=True) if here]
    rows = ([name, *values] for name, values in zip(in_tissue, slide.counts.tolist(), strict=True))
    counts = folder / "ST-cnts" / f"{slide.slide_id}.tsv.gz"
    write_bytes(counts, _gzip(_table(["", *slide.genes], rows, "\t")))
    header = ["x", "y", "new_x", "new_y", "pixel_x", "pixel_y", "selected"]
    selection = folder / "ST-spotfiles" / f"{slide.slide_id}_selection.tsv"
    spots = (
        [col, row, f"{col:.2f}", f"{row:.2f}", f"{600 + 270 * col:.1f}", f"{600 + 270 * row:.1f}", 1]
        for (row, col), here in zip(slide.array.tolist(), slide.inside.tolist(), strict=True)
        if here
    )
    write_bytes(selection, _table(header, spots, "\t").encode())
    return counts, selection, in_tissue


def write_h5ad(folder: Path, slide: SimulatedSlide, *, pitch_um: float) -> tuple[Path, list[str]]:
    """Write an AnnData file: counts in X, places in ``obsm["spatial"]`` (um) and ``obs[array_row, array_col]``.

    Returns
    -------
    tuple
        The file, and the ids of its spots.
    """
    import anndata
    import pandas as pd
    from scipy import sparse

    data, indices, indptr = _compressed(slide.counts)
    array = slide.array[slide.inside]
    ids = [f"spot-{row:03d}-{col:03d}" for row, col in array.tolist()]
    obs = pd.DataFrame({"array_row": array[:, 0], "array_col": array[:, 1]}, index=pd.Index(ids, dtype=object))
    var = pd.DataFrame({"gene_ids": ensembl_ids(slide.genes)}, index=pd.Index(slide.genes, dtype=object))
    counts = sparse.csr_matrix((data, indices, indptr), shape=slide.counts.shape)
    spatial = (array[:, ::-1] + 0.5) * pitch_um
    path = folder / f"{slide.slide_id}.h5ad"
    with atomic_path(path) as temporary:
        anndata.AnnData(X=counts, obs=obs, var=var, obsm={"spatial": spatial}).write_h5ad(temporary, compression="gzip")
    return path, ids


def write_labels(path: Path, ids: Sequence[str], domain: Sequence[str]) -> None:
    """Write a label table: one row per spot in tissue."""
    write_bytes(path, _table(["spot", "domain"], zip(ids, domain, strict=True), ",").encode())


def _compressed(
    counts: NDArray[np.int32],
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
    """Return the rows' CSR arrays (data, indices, indptr)."""
    rows, columns = np.nonzero(counts)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(counts)))]).astype(np.int64)
    return counts[rows, columns], columns.astype(np.int32), indptr


def _barcodes(n: int) -> list[str]:
    """Return distinct barcodes of 16 bases; a multiplication stirs them so that neighbours do not look alike."""
    stirred = (np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B1)) & np.uint64(0xFFFFFFFF)
    base = np.array(list("ACGT"))
    letters = base[(stirred[:, None] >> np.arange(0, 32, 2, dtype=np.uint64)) & np.uint64(3)]
    return [f"{''.join(row)}-1" for row in letters]


def _table(header: Sequence[str], rows: Iterable[Iterable[object]], delimiter: str) -> str:
    return "".join(f"{delimiter.join(map(str, row))}\n" for row in (header, *rows))


def _gzip(text: str) -> bytes:
    """Compress without a time stamp: same text, same bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0, compresslevel=6) as file:
        file.write(text.encode())
    return buffer.getvalue()
