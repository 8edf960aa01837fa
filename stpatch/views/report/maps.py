"""What a slide looks like: maps of its counts, of a gene and of a label, from the dataset or from the work dir."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.views.report.windows import Windows, explain_windows
from stpatch.views.whole import Whole

FEW = 400
"""Patches that are read for one slide at most; they are spread over it."""


@dataclass(frozen=True, kw_only=True)
class SlideMaps:
    """Maps of one slide, all (rows, columns) of its grid.

    Attributes
    ----------
    totals
        float32 counts over all genes; 0 = no spot, or none that is known.
    gene
        float32 counts of the report's gene; NaN = no spot, or not known. None: not known anywhere.
    label
        int16 category numbers, -1 = none; None: the dataset has no labels.
    windows
        What the crop considered.
    geometry
        Of the spots: square, hex or irregular; "" where unknown.
    complete
        Whether all spots of the slide are on the maps, or only those that lie in patches.
    gene_sums
        (genes,) float64, counts of each gene; None where unknown.
    """

    totals: NDArray[np.float32]
    gene: NDArray[np.float32] | None
    label: NDArray[np.int16] | None
    windows: Windows
    geometry: str = ""
    complete: bool = False
    gene_sums: NDArray[np.float64] | None = None


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to map: a gene by its id (None: none) and a label by its name ("": none)."""

    gene_id: int | None
    label: str


MapsOf = Callable[[str, pd.DataFrame, Wanted], SlideMaps | None]
"""Returns the maps of a slide from elsewhere than its patches: slide id, its patches and what to map; None: unknown."""


def maps_from_patches(whole: Whole, slide_id: str, patches: pd.DataFrame, wanted: Wanted) -> SlideMaps:
    """Put a slide's maps together from its patches alone.

    Parameters
    ----------
    patches
        The slide's rows of the patch table.
    """
    slide = whole.slides[whole.slides["slide_id"] == slide_id].iloc[0]
    shape = (int(slide["rows"]), int(slide["cols"]))
    manifest = whole.manifest
    totals = np.zeros(shape, np.float32)
    gene = np.full(shape, np.nan, np.float32) if wanted.gene_id is not None and manifest.values == "counts" else None
    label = np.full(shape, -1, np.int16) if wanted.label else None
    told = False
    for row in _covering(patches, manifest.layout.shape[1:]):
        sample = whole.sample(str(row["key"]), split=str(row["split"]))
        place, part = _overlap(int(row["row"]), int(row["col"]), sample.totals.shape, shape)
        totals[place] = np.maximum(totals[place], sample.totals[part])
        if label is not None:
            label[place] = np.maximum(label[place], sample.labels[wanted.label][part])
        if gene is not None and sample.genes is not None:
            channel = np.flatnonzero((sample.genes == wanted.gene_id) & _known(sample.measured, len(sample.genes)))
            if len(channel):
                told = True
                on = sample.totals[part] > 0
                gene[place] = np.where(on, sample.x[channel[0]][part], gene[place])
    windows = explain_windows(
        patches,
        crop=manifest.crop,
        shape=shape,
        seed=int(manifest.dataset.get("seed", 0)),
        slide_id=slide_id,
        size=(manifest.layout.shape[1], manifest.layout.shape[2]),
    )
    return SlideMaps(totals=totals, gene=gene if told else None, label=label, windows=windows)


def _known(measured: NDArray[np.bool_] | None, n: int) -> NDArray[np.bool_]:
    return np.ones(n, dtype=bool) if measured is None else measured


def _covering(patches: pd.DataFrame, size: tuple[int, int]) -> list[dict[str, Any]]:
    """Return the rows whose windows add something to those before them; not more than `FEW`."""
    once = patches.drop_duplicates(["row", "col"])
    chosen: list[dict[str, Any]] = []
    seen: set[tuple[int, int]] = set()
    step = (max(size[0] // 4, 1), max(size[1] // 4, 1))  # corners of a coarse raster stand for the pixels
    rows: list[dict[str, Any]] = [{str(k): v for k, v in row.items()} for row in once.to_dict("records")]
    for row in rows:
        height, width = int(row.get("height", size[0])), int(row.get("width", size[1]))
        top, left = int(row["row"]), int(row["col"])
        marks = {
            (r // step[0], c // step[1])
            for r in range(top, top + height, step[0])
            for c in range(left, left + width, step[1])
        }
        if not marks <= seen:
            seen |= marks
            chosen.append(row)
    keep = np.linspace(0, len(chosen) - 1, FEW).astype(int) if len(chosen) > FEW else range(len(chosen))
    return [chosen[int(i)] for i in keep]


def _overlap(
    row: int, col: int, size: tuple[int, ...], shape: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return where a window lies on the grid, and which part of it that is."""
    top, left = max(row, 0), max(col, 0)
    bottom, right = max(min(row + size[0], shape[0]), top), max(min(col + size[1], shape[1]), left)
    return (slice(top, bottom), slice(left, right)), (slice(top - row, bottom - row), slice(left - col, right - col))
