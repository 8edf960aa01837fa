"""Tiny Visium HD folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from bundles.visium import gene_rows, some_counts, write_mex, write_positions, write_tenx_h5
from scipy import sparse

UM_PER_PX = 0.25


def hd_barcodes(array: np.ndarray, bin_um: int) -> list[str]:
    """Return the bins' barcodes."""
    return [f"s_{bin_um:03d}um_{row:05d}_{column:05d}-1" for row, column in array.tolist()]


def write_square(
    folder: Path,
    *,
    bin_um: int = 2,
    rows: int = 12,
    columns: int = 10,
    n_genes: int = 6,
    matrix: str = "h5",
    ordered: bool = True,
    positions: str = "parquet",
    seed: int = 0,
) -> Path:
    """Write one ``square_*um`` folder and return it; bins of the first row and column are out of tissue."""
    array = np.array([(row, column) for row in range(rows) for column in range(columns)], np.int32)
    in_tissue = (array > 0).all(axis=1)
    kept = np.flatnonzero(in_tissue)
    if not ordered:
        kept = np.random.default_rng(3).permutation(kept)
    counts = square_counts(rows, columns, n_genes, seed=seed)[kept]
    folder.mkdir(parents=True, exist_ok=True)
    names = hd_barcodes(array[kept], bin_um)
    if matrix == "h5":
        write_tenx_h5(folder / "filtered_feature_bc_matrix.h5", counts, barcodes=names, genes=gene_rows(n_genes))
    else:
        write_mex(folder / "filtered_feature_bc_matrix", counts, barcodes=names, genes=gene_rows(n_genes))
    xy = (array[:, ::-1] + 0.5) * (bin_um / UM_PER_PX)
    write_positions(
        folder / "spatial",
        barcodes=hd_barcodes(array, bin_um),
        array=array,
        xy=xy,
        in_tissue=in_tissue,
        layout=positions,
    )
    factors = {
        "bin_size_um": float(bin_um),
        "microns_per_pixel": UM_PER_PX,
        "spot_diameter_fullres": bin_um / UM_PER_PX,
    }
    (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    return folder


def square_counts(rows: int, columns: int, n_genes: int, *, seed: int = 0) -> sparse.csr_matrix:
    """Return the counts of all bins of the array, row by row."""
    return some_counts(rows * columns, n_genes, seed=seed)


def write_visium_hd(folder: Path, *, bins: tuple[int, ...] = (2, 8), positions: str = "parquet") -> Path:
    """Write an outs folder with ``binned_outputs`` and return it."""
    for bin_um in bins:
        write_square(
            folder / "binned_outputs" / f"square_{bin_um:03d}um",
            bin_um=bin_um,
            rows=max(2, 24 // bin_um),
            columns=max(2, 20 // bin_um),
            positions=positions,
        )
    return folder
