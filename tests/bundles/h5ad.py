"""Tiny AnnData objects, as HDF5 or zarr."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bundles.visium import barcode_names, hex_array, hex_xy, some_counts
from scipy import sparse


def make_anndata(
    *,
    n_genes: int = 8,
    rows: int = 4,
    columns: int = 5,
    visium: bool = True,
    matrix: str = "X",
    storage: str = "csr",
    seed: int = 0,
) -> Any:
    """Return an AnnData of a hexagonal slide; counts lie in `matrix`: ``X``, ``layers`` or ``raw``."""
    import anndata

    array = hex_array(rows, columns)
    counts = some_counts(len(array), n_genes, seed=seed)
    obs = pd.DataFrame(index=pd.Index(barcode_names(len(array)), dtype=object))
    obs["region"] = pd.Categorical(["tumour" if i % 3 else "stroma" for i in range(len(obs))])
    if visium:
        obs["in_tissue"] = 1
        obs["array_row"], obs["array_col"] = array[:, 0], array[:, 1]
    var = pd.DataFrame(index=pd.Index([f"GENE{i}" for i in range(n_genes)], dtype=object))
    var["gene_ids"] = [f"ENSG{i:011d}" for i in range(n_genes)]
    var["feature_types"] = "Gene Expression"
    stored = {"csr": counts, "csc": sparse.csc_matrix(counts), "dense": counts.toarray()}[storage]
    logs = sparse.csr_matrix(counts, dtype=np.float32).log1p()
    slide = anndata.AnnData(X=stored if matrix == "X" else logs, obs=obs, var=var)
    if matrix == "layers":
        slide.layers["counts"] = stored
    if matrix == "raw":
        slide.raw = anndata.AnnData(X=stored, obs=obs, var=var)
    slide.obsm["spatial"] = hex_xy(array)
    if visium:
        slide.uns["spatial"] = {"lib": {"scalefactors": {"spot_diameter_fullres": 110.0}, "metadata": {"a": "b"}}}
    return slide


def write_anndata(path: Path, slide: Any, *, zarr_format: int | None = None) -> Path:
    """Write ``.h5ad``, or zarr of the given format."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if zarr_format is None:
            slide.write_h5ad(path)
        else:
            import zarr
            from anndata.io import write_elem

            group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
            write_elem(group, "/", slide)
    return path


def write_h5ad(path: Path, **options: Any) -> Path:
    """Write a tiny ``.h5ad`` and return it; options as in `make_anndata`."""
    return write_anndata(path, make_anndata(**options))
