"""Tiny MERSCOPE output folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from bundles.xenium import write_table

GENES = ["PDK4", "CCL26", "Blank-1", "CX3CL1"]
N_CELLS = 7


def some_ids() -> list[str]:
    """Return ids that a float64 cannot hold."""
    return [f"23170329000001000{i:02d}" for i in range(N_CELLS)]


def some_counts() -> pd.DataFrame:
    """Return ``cell_by_gene``."""
    counts = np.random.default_rng(0).poisson(1.0, (N_CELLS, len(GENES)))
    return pd.DataFrame({"cell": some_ids()} | {gene: counts[:, i] for i, gene in enumerate(GENES)})


def some_cells() -> pd.DataFrame:
    """Return ``cell_metadata``; ``fov`` is empty, as VPT leaves it."""
    number = np.arange(N_CELLS)
    return pd.DataFrame(
        {
            "EntityID": some_ids(),
            "fov": None,
            "volume": [np.nan, *(100.5 + number[1:])],
            "center_x": 12.25 * number - 30,
            "center_y": 1000.0 - number,
        }
    )


def some_transcripts(n: int = 200) -> pd.DataFrame:
    """Return ``detected_transcripts``."""
    generator = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "barcode_id": 0,
            "global_x": generator.uniform(-30, 60, n),
            "global_y": generator.uniform(990, 1010, n),
            "global_z": 0.0,
            "gene": np.array(GENES)[generator.integers(0, len(GENES), n)],
        }
    )


def write_merscope(
    folder: Path,
    *,
    prefix: str = "",
    suffix: str = "",
    id_column: str = "EntityID",
    order: list[int] | None = None,
    cells: bool = True,
    transcripts: bool = False,
) -> Path:
    """Write a bundle and return its folder; `order` is that of the metadata's rows."""
    if cells:
        write_table(some_counts(), folder / f"{prefix}cell_by_gene{suffix}.csv")
        table = some_cells().rename(columns={"EntityID": id_column})
        write_table(table if order is None else table.iloc[order], folder / f"{prefix}cell_metadata{suffix}.csv")
    if transcripts:
        write_table(some_transcripts(), folder / f"{prefix}detected_transcripts{suffix}.csv", row_names=True)
    return folder
