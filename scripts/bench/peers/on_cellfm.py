"""Streams blocks of 16 x 16 spots through the Hugging Face interface of cellfm-datasets: all genes, and 512."""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import anndata
import numpy as np
from cellfm_dataset import SpatialBlockSampler, load_hf_group_dataset
from cellfm_dataset.convert import convert_h5ad_manifest
from slides import GENES, SIDE, again, report, slide_paths, top_genes

warnings.simplefilter("ignore")


def main() -> None:
    paths, seconds = slide_paths(sys.argv[1]), float(sys.argv[2])
    slide = anndata.read_h5ad(paths[0])
    genes = slide.var_names.to_numpy()
    block = tuple(SIDE * step for step in spacing(slide.obsm["spatial"]))
    with tempfile.TemporaryDirectory(dir=Path(sys.argv[1]).parent) as folder:
        for what, vocabulary in (
            ("stream of blocks, all genes, sparse", genes),
            (f"stream of blocks, {GENES} genes, dense", genes[top_genes(slide.X)]),
        ):
            begun = time.perf_counter()
            store = convert(Path(folder) / str(len(vocabulary)), paths, vocabulary)
            prepare = time.perf_counter() - begun
            sampler = SpatialBlockSampler(block_shape=block, min_cells=SIDE * SIDE // 2, shuffle=True)
            stream = load_hf_group_dataset(dataset_root=str(store), sampler=sampler, streaming=True)
            records = again(lambda stream=stream: stream)
            first = next(records)  # finds all blocks of the first slide
            windows = records if len(vocabulary) > GENES else (dense(item, block) for item in records)
            spots = len(first["source_cell_indices"])
            report(windows, what, seconds=seconds, **{"prepare s": prepare, "spots": spots})


def convert(folder: Path, paths: list[Path], vocabulary: Any) -> Path:
    """Write the slides in the peer's own format, once."""
    folder.mkdir()
    (folder / "genes.txt").write_text("\n".join(vocabulary) + "\n")
    manifest = folder / "slides.json"
    manifest.write_text(json.dumps([{"h5ad": str(path.absolute()), "sample_id": path.stem} for path in paths]))
    store = folder / "store"
    convert_h5ad_manifest(
        manifest_json=manifest, output_dir=store, gene_vocab_path=folder / "genes.txt", expression_transform="none"
    )
    return store


def spacing(xy: Any) -> tuple[float, float]:
    """Return the units between neighbours across, within a row, and between rows."""
    y = np.unique(xy[:, 1])
    first_row = np.sort(xy[xy[:, 1] == y[0], 0])
    return float(first_row[1] - first_row[0]), float(y[1] - y[0])


def dense(item: dict[str, Any], block: tuple[float, ...]) -> Any:
    """Return a block as (genes, rows, columns)."""
    (x0, _), (y0, _) = item["block_bounds"]
    xy = np.asarray(item["raw_coords"], np.float32)
    column = ((xy[:, 0] - x0) * (SIDE / block[0]) + 1e-3).astype(int)
    row = ((xy[:, 1] - y0) * (SIDE / block[1]) + 1e-3).astype(int)
    pixel = np.repeat(np.minimum(row, SIDE - 1) * SIDE + np.minimum(column, SIDE - 1), np.diff(item["cell_ptr"]))
    out = np.zeros((GENES, SIDE * SIDE), np.float32)
    out[np.asarray(item["gene_indices"]), pixel] = item["gene_values"]
    return out.reshape(GENES, SIDE, SIDE)


if __name__ == "__main__":
    main()
