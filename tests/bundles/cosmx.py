"""Tiny folders of CosMx flat files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from bundles.xenium import write_table

GENES = ["AATK", "ABL1", "NegPrb1", "SystemControl7"]
FOV_PX = {1: (0.0, 4000.0), 2: (5472.5, 4000.0)}
UM = 0.120280945


def some_counts() -> pd.DataFrame:
    """Return ``exprMat``: two FOVs of background and three cells."""
    rows = [(fov, cell) for fov in FOV_PX for cell in range(4)]
    counts = np.random.default_rng(0).poisson(1.0, (len(rows), len(GENES))) + 1
    fov, cell = np.array(rows).T
    return pd.DataFrame({"fov": fov, "cell_ID": cell} | {gene: counts[:, i] for i, gene in enumerate(GENES)})


def some_cells(place: str = "global") -> pd.DataFrame:
    """Return ``metadata`` without background, places ``global``, ``local`` or ``both``."""
    cells = some_counts().query("cell_ID > 0")[["fov", "cell_ID"]].reset_index(drop=True)
    local = np.column_stack([100.0 * cells["cell_ID"], 50.5 * cells["cell_ID"]])
    corner = np.array([FOV_PX[fov] for fov in cells["fov"]])
    cells["Area"] = 1000 + cells["cell_ID"]
    if place != "global":
        cells[["CenterX_local_px", "CenterY_local_px"]] = local
    if place != "local":
        cells[["CenterX_global_px", "CenterY_global_px"]] = local + corner
    return cells


def some_fovs(layout: str = "px", *, um: float = UM) -> pd.DataFrame:
    """Return ``fov_positions``: ``px``, ``mm`` (upper case), ``global_mm`` or ``both``."""
    px = pd.DataFrame(FOV_PX, index=["x_global_px", "y_global_px"]).T
    mm = (px * um / 1000).set_axis(["x_global_mm", "y_global_mm"], axis=1)
    frame = {"px": px, "global_mm": mm, "mm": mm.set_axis(["X_mm", "Y_mm"], axis=1), "both": px.join(mm)}[layout]
    return frame.rename_axis("FOV" if layout == "mm" else "fov").reset_index()


def some_molecules(place: str = "global", n: int = 200) -> pd.DataFrame:
    """Return ``tx``."""
    generator = np.random.default_rng(2)
    fov = generator.integers(1, 3, n)
    local = generator.uniform(0, 5000, (n, 2))
    frame = pd.DataFrame({"fov": fov, "cell_ID": 0, "target": np.array(GENES)[generator.integers(0, 4, n)]})
    if place == "global":
        frame[["x_global_px", "y_global_px"]] = local + np.array([FOV_PX[f] for f in fov])
    frame[["x_local_px", "y_local_px"]] = local
    return frame


def write_cosmx(
    folder: Path,
    *,
    prefix: str = "lung_",
    end: str = ".csv",
    place: str | None = "global",
    fovs: str | None = "px",
    molecules: str | None = None,
    molecule_place: str = "global",
    um: float = UM,
) -> Path:
    """Write a bundle and return its folder; None leaves a table out."""
    if place is not None:
        write_table(some_counts(), folder / f"{prefix}exprMat_file{end}")
        write_table(some_cells(place).iloc[::-1], folder / f"{prefix}metadata_file{end}")
    if fovs is not None:
        write_table(some_fovs(fovs, um=um), folder / f"{prefix}fov_positions_file{end}")
    if molecules is not None:
        write_table(some_molecules(molecule_place), folder / f"{prefix}tx_file{molecules}")
    return folder
