"""Small whole datasets, one of each way to store samples, and their files as bytes by path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from bundles.built import build, poisson_counts, square, write_counts

Files = dict[str, bytes]

KINDS: dict[str, dict[str, Any]] = {
    "tar blosc": {
        "channels": {"n": 5, "method": "variance_sampled", "scope": "patch", "draws": 2},
        "shards": {"format": "tar", "encoding": "blosc", "patches": 4},
        "ingest": {"labels": ["region"]},
    },
    "tar npy": {
        "channels": {"n": 5, "method": "hvg_seurat", "scope": "panel"},
        "shards": {"format": "tar", "encoding": "npy", "patches": 4, "values": "normalized"},
    },
    "tar sparse": {
        "channels": {"n": 5, "method": "hvg_seurat", "scope": "panel"},
        "shards": {"format": "tar", "encoding": "sparse", "patches": 4},
        "normalize": {"target_sum": "slide_median"},
    },
    "zarr blosc": {
        "channels": {"n": 5, "method": "variance_sampled", "scope": "patch"},
        "shards": {"format": "zarr", "encoding": "blosc", "patches": 4},
        "ingest": {"labels": ["region"]},
    },
}
"""Config sections by kind."""


def build_kinds(folder: Path) -> dict[str, Path]:
    """Build a dataset of each kind from three slides; return their folders."""
    outputs = {}
    for number, (kind, sections) in enumerate(KINDS.items()):
        place = folder / str(number)
        place.mkdir(parents=True)
        for slide in range(3):
            array = square(8, 8)
            region = np.array(["tumour", "stroma"])[array[:, 0] // 4].tolist()
            counts = poisson_counts(len(array), 20, seed=10 * number + slide)
            write_counts(place / f"s{slide}.h5ad", counts, array=array, obs={"region": region})
        rows = [{"slide_id": f"s{slide}", "donor": f"d{slide}"} for slide in range(3)]
        split = {"fractions": {"train": 0.7, "val": 0.3}}
        outputs[kind] = build(place, rows, split=split, **sections).output
    return outputs


def files_of(folder: Path) -> Files:
    """Return the bytes of all files by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
