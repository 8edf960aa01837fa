"""Tiny Xenium output folders."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
from bundles.visium import some_counts, write_mex, write_tenx_h5

N_CELLS = 9
GENES = [
    ("ENSG00000000001", "ACTA2", "Gene Expression"),
    ("ENSG00000000002", "EPCAM", "Gene Expression"),
    ("NegControlProbe_00001", "NegControlProbe_00001", "Negative Control Probe"),
    ("UnassignedCodeword_0001", "UnassignedCodeword_0001", "Unassigned Codeword"),
]


def some_cells(ids: str = "text") -> pd.DataFrame:
    """Return the cell table, ids as ``text``, ``int``, ``float`` or ``bytes``."""
    numbers = np.arange(1, N_CELLS + 1)
    texts = [f"aaaa{number}-1" for number in numbers]
    kinds = {"text": texts, "int": numbers, "float": numbers.astype(float), "bytes": [text.encode() for text in texts]}
    return pd.DataFrame(
        {
            "cell_id": kinds[ids],
            "x_centroid": 100.0 + 7.5 * numbers,
            "y_centroid": 50.0 + numbers % 3,
            "transcript_counts": numbers,
            "cell_area": 30.0 + numbers,
        }
    )


def some_transcripts(n: int = 300, *, seed: int = 0) -> pd.DataFrame:
    """Return the transcript table."""
    generator = np.random.default_rng(seed)
    names = np.array(["ACTA2", "EPCAM", "NegControlProbe_00001", "Intergenic_1", "CD3E"])
    return pd.DataFrame(
        {
            "transcript_id": np.arange(n),
            "cell_id": "UNASSIGNED",
            "feature_name": names[generator.integers(0, len(names), n)],
            "x_location": generator.uniform(-20, 80, n),
            "y_location": generator.uniform(0, 60, n),
            "z_location": 1.0,
            "qv": generator.uniform(0, 40, n),
        }
    )


def write_table(frame: pd.DataFrame, path: Path, *, row_names: bool = False) -> Path:
    """Write parquet, CSV or gzipped CSV by the name's end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        text = frame.to_csv(index=row_names, lineterminator="\n").encode()
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def write_xenium(
    folder: Path,
    *,
    matrix: str | None = "h5",
    cells: str | None = "cells.parquet",
    transcripts: str | None = None,
    ids: str = "text",
    order: list[int] | None = None,
    row_names: bool = False,
    version: str = "xenium-3.0.0.15",
    bytes_names: bool = False,
    is_gene: bool = False,
) -> Path:
    """Write a bundle and return its folder; `order` is that of the cell table's rows."""
    folder.mkdir(parents=True, exist_ok=True)
    table = some_cells(ids)
    barcodes = (
        [str(number) for number in range(1, N_CELLS + 1)] if ids in ("int", "float") else list(some_cells()["cell_id"])
    )
    counts = some_counts(N_CELLS, len(GENES))
    if matrix == "h5":
        write_tenx_h5(folder / "cell_feature_matrix.h5", counts, barcodes=barcodes, genes=GENES)
    elif matrix == "mex":
        write_mex(folder / "cell_feature_matrix", counts, barcodes=barcodes, genes=GENES)
    if cells is not None:
        table = table if order is None else table.iloc[order]
        write_table(table, folder / cells, row_names=row_names)
    if transcripts is not None:
        molecules = some_transcripts()
        if is_gene:
            molecules["is_gene"] = molecules["feature_name"].isin(["ACTA2", "EPCAM", "CD3E"])
        if bytes_names:
            molecules["feature_name"] = molecules["feature_name"].str.encode("utf-8")
        write_table(molecules, folder / transcripts)
    (folder / "experiment.xenium").write_text(json.dumps({"analysis_sw_version": version}))
    return folder
