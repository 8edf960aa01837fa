"""Tiny corpus files as the paper's code writes them."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
from bundles.visium import some_counts


def write_paper_h5(
    folder: Path,
    *,
    groups: tuple[str, ...] = ("slide_a",),
    n_spots: int = 30,
    n_genes: int = 6,
    ids: str = "int",
    dtype: type = np.float32,
    vocabulary: bool = True,
    logs: bool = False,
) -> Path:
    """Write ``corpus.h5`` and ``vocab.json``; `ids`: ``int``, ``text`` (numbers as text) or ``name``."""
    folder.mkdir(parents=True, exist_ok=True)
    genes = {"<pad>": 0, **{f"GENE{i}": 10 + i for i in range(n_genes)}}
    numbers = list(genes.values())[1:]
    index = {
        "int": np.array(numbers),
        "text": np.array([str(number) for number in numbers], "S"),
        "name": np.array(list(genes)[1:], "S"),
    }[ids]
    path = folder / "corpus.h5"
    with h5py.File(path, "w") as file:
        for seed, name in enumerate(groups):
            group = file.create_group(name)
            dense = some_counts(n_spots, n_genes, seed=seed).toarray().astype(dtype)
            group["expr_map"] = np.log1p(dense) if logs else dense
            row, column = np.divmod(np.arange(n_spots), 5)
            group["coords_map"] = np.column_stack([column, row]) * 7.0
            group["vocab_index"] = index
    if vocabulary:
        (folder / "vocab.json").write_text(json.dumps(genes))
    return path
