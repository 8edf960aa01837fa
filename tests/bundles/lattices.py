"""Spots on lattices, and what happens to them on the way into files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from bundles.h5ad import make_anndata


def square_array(rows: int, columns: int) -> np.ndarray:
    """Return (rows * columns, 2) array indices of a square lattice."""
    return np.stack(np.divmod(np.arange(rows * columns), columns), axis=1).astype(np.int32)


def square_xy(array: np.ndarray, *, step: float = 30.0) -> np.ndarray:
    """Return coordinates (x, y) of a square lattice: columns are x, rows are y."""
    return array[:, ::-1] * step + 100.0


def turned(xy: np.ndarray, degrees: float) -> np.ndarray:
    """Return coordinates turned about (0, 0)."""
    angle = np.radians(degrees)
    return xy @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def disc(array: np.ndarray, *, share: float = 0.5) -> np.ndarray:
    """Return which places of an array lie in the disc (or ellipse) that touches its sides, made smaller by `share`."""
    centre, half = array.mean(axis=0), np.ptp(array, axis=0) / 2
    return (((array - centre) / half) ** 2).sum(axis=1) <= 2 * share


def square_anndata(rows: int, columns: int, *, keep: np.ndarray | None = None, seed: int = 0) -> Any:
    """Return an AnnData of a square array: obs array_row, array_col and obsm spatial."""
    slide = make_anndata(rows=rows, columns=columns, visium=False, seed=seed)
    array = square_array(rows, columns)
    del slide.obs["region"]
    slide.obs["array_row"], slide.obs["array_col"] = array[:, 0], array[:, 1]
    slide.obsm["spatial"] = square_xy(array)
    return slide if keep is None else slide[keep].copy()


def joined(*slides: Any, column: str | None = "library_id", values: list[str] | None = None, shift: float = 0.0) -> Any:
    """Return sections joined in one AnnData, told apart by a column; each is shifted along x by `shift` more."""
    import anndata

    values = values or [chr(ord("A") + number) for number in range(len(slides))]
    parts = []
    for number, (slide, value) in enumerate(zip(slides, values, strict=True)):
        part = slide.copy()
        part.obs_names = [f"{name}-{value}" for name in part.obs_names]
        part.obsm["spatial"] = np.asarray(part.obsm["spatial"]) + np.array([number * shift, 0.0])
        if column is not None:
            part.obs[column] = pd.Categorical([value] * part.n_obs)
        parts.append(part)
    whole = anndata.concat(parts, merge="same")
    whole.var = slides[0].var
    return whole
