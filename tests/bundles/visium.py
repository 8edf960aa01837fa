"""Tiny Space Ranger folders."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy import sparse

UM_PER_PX = 0.5
HEADER = "barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres"


def hex_array(rows: int, columns: int) -> np.ndarray:
    """Return (rows * columns, 2) array indices of a hexagonal lattice."""
    return np.array([(row, 2 * column + row % 2) for row in range(rows) for column in range(columns)], np.int32)


def hex_xy(array: np.ndarray) -> np.ndarray:
    """Return full-resolution pixels (x, y) of a lattice of `UM_PER_PX`."""
    step = 100 / UM_PER_PX
    return np.column_stack([array[:, 1] * step / 2, array[:, 0] * step * np.sqrt(3) / 2]) + 50.0


def some_counts(n_spots: int, n_genes: int, *, seed: int = 0) -> sparse.csr_matrix:
    """Return sparse counts without an empty spot."""
    generator = np.random.default_rng(seed)
    dense = generator.poisson(0.7, (n_spots, n_genes))
    dense[:, 0] += 1
    return sparse.csr_matrix(dense.astype(np.int32))


def barcode_names(n: int) -> list[str]:
    """Return n different 16-letter barcodes."""
    letters = np.array(list("ACGT"))
    return ["".join(letters[[(i >> 2 * k) & 3 for k in range(16)]]) + "-1" for i in range(n)]


def gene_rows(n: int) -> list[tuple[str, str, str]]:
    """Return (id, name, feature type)."""
    return [(f"ENSG{i:011d}", f"GENE{i}", "Gene Expression") for i in range(n)]


def write_tenx_h5(
    path: Path,
    counts: sparse.csr_matrix,
    *,
    barcodes: list[str],
    genes: list[tuple[str, str, str]],
    layout: str = "v3",
    dtype: Any = np.int32,
    software: str = "spaceranger-2.0.1",
) -> Path:
    """Write a 10x HDF5 matrix: ``v3`` (features) or ``v2`` (legacy genome group)."""
    matrix = sparse.csr_matrix(counts)
    with h5py.File(path, "w") as file:
        file.attrs["software_version"] = software
        group = file.create_group("matrix" if layout == "v3" else "GRCh38")
        group["barcodes"] = np.array(barcodes, "S")
        group["data"] = matrix.data.astype(dtype)
        index_dtype = dtype if np.dtype(dtype).kind == "f" else np.int64
        group["indices"] = matrix.indices.astype(index_dtype)
        group["indptr"] = matrix.indptr.astype(index_dtype)
        group["shape"] = np.array(matrix.shape[::-1], index_dtype)
        ids, names, types = (np.array(column, "S") for column in zip(*genes, strict=True))
        if layout == "v3":
            features = group.create_group("features")
            features["id"], features["name"], features["feature_type"] = ids, names, types
            features["genome"] = np.array(["GRCh38"] * len(genes), "S")
        else:
            group["genes"], group["gene_names"] = ids, names
    return path


def write_mex(
    folder: Path,
    counts: sparse.csr_matrix,
    *,
    barcodes: list[str],
    genes: list[tuple[str, str, str]],
    zipped: bool = True,
    legacy: bool = False,
    by_barcode: bool = True,
    prefix: str = "",
) -> Path:
    """Write a MEX folder; `legacy` has ``genes.tsv`` with two columns, `by_barcode` False shuffles the entries."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = sparse.coo_matrix(counts)
    order = np.arange(entries.nnz) if by_barcode else np.random.default_rng(1).permutation(entries.nnz)
    lines = ["%%MatrixMarket matrix coordinate integer general", '%metadata_json: {"software_version": "sr-3", "v": 2}']
    lines.append(f"{counts.shape[1]} {counts.shape[0]} {entries.nnz}")
    lines += [f"{entries.col[i] + 1} {entries.row[i] + 1} {entries.data[i]}" for i in order]
    write_text(folder / f"{prefix}matrix.mtx", "\n".join(lines) + "\n", zipped=zipped)
    rows = ["\t".join(gene[:2] if legacy else gene) for gene in genes]
    write_text(folder / f"{prefix}{'genes' if legacy else 'features'}.tsv", "\n".join(rows) + "\n", zipped=zipped)
    write_text(folder / f"{prefix}barcodes.tsv", "\n".join(barcodes) + "\n", zipped=zipped)
    return folder


def write_text(path: Path, text: str, *, zipped: bool) -> Path:
    """Write text, gzipped under ``.gz`` if asked."""
    if zipped:
        path = path.with_name(f"{path.name}.gz")
        path.write_bytes(gzip.compress(text.encode(), mtime=0))
    else:
        path.write_bytes(text.encode())
    return path


def write_positions(
    folder: Path,
    *,
    barcodes: list[str],
    array: np.ndarray,
    xy: np.ndarray,
    in_tissue: np.ndarray,
    layout: str = "v2",
    name: str | None = None,
) -> Path:
    """Write a positions table: ``v1`` (no header), ``v1h`` (old name, header), ``v2`` (csv), ``parquet``, ``txt``."""
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    names = {"v1": "tissue_positions_list.csv", "v1h": "tissue_positions_list.csv", "txt": "tissue_positions_list.txt"}
    table = pd.DataFrame(
        {
            "barcode": barcodes,
            "in_tissue": in_tissue.astype(np.int32),
            "array_row": array[:, 0].astype(np.int32),
            "array_col": array[:, 1].astype(np.int32),
            "pxl_row_in_fullres": xy[:, 1],
            "pxl_col_in_fullres": xy[:, 0],
        }
    )
    if layout == "parquet":
        path = folder / (name or "tissue_positions.parquet")
        table.to_parquet(path, index=False)
        return path
    path = folder / (name or names.get(layout, "tissue_positions.csv"))
    table.to_csv(path, index=False, header=layout in ("v2", "v1h"), lineterminator="\n")
    return path


def write_visium(
    folder: Path,
    *,
    layout: str = "v2",
    matrix: str = "h5",
    kind: str = "filtered",
    rows: int = 6,
    columns: int = 5,
    n_genes: int = 8,
    seed: int = 0,
) -> Path:
    """Write a Space Ranger outs folder and return it; every seventh position is out of tissue and has no column."""
    array = hex_array(rows, columns)
    barcodes = barcode_names(len(array))
    in_tissue = np.arange(len(array)) % 7 != 0
    kept = np.flatnonzero(in_tissue) if kind == "filtered" else np.arange(len(array))
    counts = some_counts(len(kept), n_genes, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    kept_barcodes = [barcodes[i] for i in kept[::-1]]
    if matrix in ("h5", "both"):
        write_tenx_h5(folder / f"{kind}_feature_bc_matrix.h5", counts, barcodes=kept_barcodes, genes=gene_rows(n_genes))
    if matrix in ("mex", "both"):
        write_mex(folder / f"{kind}_feature_bc_matrix", counts, barcodes=kept_barcodes, genes=gene_rows(n_genes))
    spatial = folder / "spatial"
    write_positions(spatial, barcodes=barcodes, array=array, xy=hex_xy(array), in_tissue=in_tissue, layout=layout)
    scale = {"spot_diameter_fullres": 55 / UM_PER_PX, "tissue_hires_scalef": 0.1, "tissue_lowres_scalef": 0.03}
    (spatial / "scalefactors_json.json").write_text(json.dumps(scale))
    return folder
