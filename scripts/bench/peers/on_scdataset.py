"""Streams batches of one 16 x 16 window each from .h5ad files through scDataset: all genes, and 512 as an array."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import anndata
import numpy as np
from scdataset import Streaming, scDataset
from slides import GENES, SIDE, again, pixels_of, report, slide_paths, top_genes, whole_windows

warnings.simplefilter("ignore")


def main() -> None:
    slides = [anndata.read_h5ad(path, backed="r") for path in slide_paths(sys.argv[1])]
    seconds = float(sys.argv[2])
    genes = top_genes(slides[0].X[:2_000])

    def dense(batch: Any) -> Any:
        return batch[:, genes].toarray().T.reshape(GENES, SIDE, SIDE)

    for what, transform in (
        ("a window a batch of .h5ad, all genes, sparse", None),
        (f"a window a batch of .h5ad, {GENES} genes, dense", dense),
    ):
        report(again(lambda transform=transform: epoch(slides, transform)), what, seconds=seconds)


def epoch(slides: list[Any], transform: Callable[[Any], Any] | None) -> Iterator[Any]:
    """Yield one batch a full window, windows in random order."""
    for slide in slides:
        windows = whole_windows(*pixels_of(slide.obs))
        order = np.random.default_rng(0).permutation(len(windows))
        spots = np.concatenate([windows[i] for i in order])
        yield from scDataset(
            Rows(slide),
            Streaming(indices=spots),
            batch_size=SIDE * SIDE,
            fetch_factor=8,
            batch_transform=transform,
        )


class Rows:
    """A slide's counts by spot: HDF5 wants ascending rows."""

    def __init__(self, slide: Any) -> None:
        self.slide = slide

    def __len__(self) -> int:
        return int(self.slide.shape[0])

    def __getitem__(self, spots: Any) -> Any:
        order = np.argsort(spots)
        return self.slide.X[np.asarray(spots)[order]][np.argsort(order)]


if __name__ == "__main__":
    main()
