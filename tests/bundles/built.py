"""Slides of given counts as ``.h5ad`` files, and datasets built from them in this process."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata
import numpy as np
import pandas as pd
from bundles.h5ad import write_anndata
from numpy.typing import NDArray
from scipy import sparse

from stpatch.config_file import parse_config
from stpatch.engine.graph import STAGES
from stpatch.engine.run import run_stages
from stpatch.stages.job import Job


def poisson_counts(n_spots: int, n_genes: int, *, seed: int = 0, mean: float = 2.0) -> NDArray[np.int64]:
    """Return (spots, genes) counts whose genes differ in mean and spread; every spot has some."""
    rng = np.random.default_rng(seed)
    gene_means = rng.gamma(0.7, mean, n_genes)
    counts = rng.poisson(rng.gamma(1.5, gene_means / 1.5, (n_spots, n_genes)))
    counts[:, 0] += 1
    return counts


def square(rows: int, columns: int) -> NDArray[np.int64]:
    """Return the (array_row, array_col) of a full rectangle."""
    return np.stack([part.ravel() for part in np.indices((rows, columns))], axis=1)


def write_counts(
    path: Path,
    counts: NDArray[Any],
    *,
    array: NDArray[Any] | None = None,
    xy: NDArray[Any] | None = None,
    genes: Sequence[str] | None = None,
    ensembl: Sequence[str] | None = None,
    obs: Mapping[str, Sequence[Any]] | None = None,
) -> Path:
    """Write a slide; without `xy` its coordinates are the array's columns and rows."""
    if xy is None:
        xy = np.asarray(array)[:, ::-1]
    names = [f"G{i:03d}" for i in range(counts.shape[1])] if genes is None else list(genes)
    table = pd.DataFrame(dict(obs or {}), index=pd.Index([f"s{i:04d}" for i in range(len(counts))], dtype=object))
    if array is not None:
        table["array_row"], table["array_col"] = array[:, 0], array[:, 1]
    var = pd.DataFrame(index=pd.Index(names, dtype=object))
    if ensembl is not None:
        var["gene_ids"] = list(ensembl)
    slide = anndata.AnnData(X=sparse.csr_matrix(counts), obs=table, var=var)
    slide.obsm["spatial"] = np.asarray(xy, float)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_anndata(path, slide)


def write_sheet(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write ``slides.csv``: a row needs slide_id; its path is ``<slide_id>.h5ad`` where it has none."""
    rows = [{"path": f"{row['slide_id']}.h5ad", **row} for row in rows]
    names = list(dict.fromkeys(name for row in rows for name in row))
    with (folder / "slides.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return folder / "slides.csv"


def make_job(folder: Path, rows: Sequence[Mapping[str, Any]], *, name: str = "out", **sections: Any) -> Job:
    """Write the samplesheet; return the job of a config with one split, whose sections are laid over by `sections`."""
    sheet = write_sheet(folder, rows)
    value: dict[str, Any] = {
        "dataset": {"name": "tiny", "output": name},
        "slides": {"sheet": sheet.name},
        "channels": {"n": 5},
        "crop": {"size": [4, 4], "min_coverage": 0},
        "split": {"fractions": {"train": 1.0}},
        "run": {"workers": 1},
    }
    for section, keys in sections.items():
        value[section] = {**value.get(section, {}), **keys}
    return Job(parse_config(value, base=folder))


def build(
    folder: Path, rows: Sequence[Mapping[str, Any]], *, workers: int = 1, name: str = "out", **sections: Any
) -> Job:
    """Build a dataset in ``folder/name`` and return its job; `sections` as in `make_job`."""
    return build_job(make_job(folder, rows, name=name, **sections), workers=workers)


def build_job(job: Job, *, workers: int = 1) -> Job:
    """Run all stages of a job without a word; a finished dataset of other settings is replaced."""
    run_stages(job, tuple(STAGES), progress=_silent, workers=workers, replace=True)
    return job


@contextmanager
def _silent(_stage: str, _units: int, _done: int) -> Iterator[Any]:
    yield SimpleNamespace(update=lambda _n: None)
