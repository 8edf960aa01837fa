"""Three small slides with holes, labels and several spots on a pixel, and datasets built from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
from bundles.built import build, poisson_counts, square, write_counts
from numpy.typing import NDArray

SHAPES = ((9, 11), (12, 7), (6, 8))
N_GENES = 30


def write_slides(folder: Path) -> list[dict[str, Any]]:
    """Write the slides and return the rows of their samplesheet."""
    rows = []
    for number, (height, width) in enumerate(SHAPES):
        source = np.random.default_rng(number)
        array = square(height, width)
        array = array[source.random(len(array)) > 0.25]
        counts = poisson_counts(len(array), N_GENES, seed=number)
        counts[source.random(counts.shape) < 0.6] = 0
        counts[:, 0] += 1
        region = np.array(["tumour", "stroma", ""])[source.integers(0, 3, len(array))]
        # slides measure different genes, in different orders
        genes = [f"G{gene:03d}" for gene in source.permutation(N_GENES + 4)[:N_GENES]]
        write_counts(folder / f"S{number}.h5ad", counts, array=array, genes=genes, obs={"region": region})
        rows.append({"slide_id": f"S{number}", "donor": f"d{number}", "organ": "breast" if number else "lung"})
    return rows


def build_slides(folder: Path, rows: list[dict[str, Any]], name: str, **sections: Any) -> Path:
    """Build a dataset and return its folder."""
    sections.setdefault("ingest", {"labels": ["region"]})
    sections.setdefault("split", {"fractions": {"train": 0.7, "val": 0.3}})
    build(folder, rows, name=name, **sections)
    return folder / name


def dense(folder: Path, slide_id: str, gene_names: list[str]) -> NDArray[np.int64]:
    """Return a slide's (genes, rows, columns) counts on its lattice, straight from its file."""
    slide = anndata.read_h5ad(folder / f"{slide_id}.h5ad")
    row, col = slide.obs["array_row"].to_numpy(), slide.obs["array_col"].to_numpy()
    out = np.zeros((len(gene_names), int(row.max()) + 1 - row.min(), int(col.max()) + 1 - col.min()), np.int64)
    counts = slide.X.toarray().astype(np.int64)
    for place, name in enumerate(gene_names):
        if name in slide.var_names:
            np.add.at(out[place], (row - row.min(), col - col.min()), counts[:, slide.var_names.get_loc(name)])
    return out
