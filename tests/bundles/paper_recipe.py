"""The paper's recipe in plain loops, and its corpus layout: slow, and readable against the paper.

Written from the description alone; it shares no code with stpatch. A slide is scaled to a square of 140 x 140 cells,
each axis on its own, and rounded; the first spot of a cell wins; a patch is a window of the square; a value is log1p of
the count scaled to a total of 10,000 over all genes; a gene's variance is over the spots of the window.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

SIDE = 140
TARGET = 10_000

Cells = dict[tuple[int, int], int]
"""(row, column) of a cell -> the spot that it holds."""


@dataclass(frozen=True)
class RecipeSlide:
    """A slide as its files have it.

    Attributes
    ----------
    spots
        One a spot, in the files' order: gene -> count, of the genes with a count.
    xy
        (spots, 2) coordinates.
    genes
        All measured genes.
    """

    spots: Sequence[Mapping[str, int]]
    xy: NDArray[np.float64]
    genes: Sequence[str]


def slide_of_dense(counts: NDArray[np.int64], xy: NDArray[np.float64], genes: Sequence[str]) -> RecipeSlide:
    """Return the slide of a (spots, genes) matrix."""
    spots = [{genes[j]: int(row[j]) for j in np.flatnonzero(row)} for row in counts]
    return RecipeSlide(spots=spots, xy=np.asarray(xy, np.float64), genes=list(genes))


def place_spots(slide: RecipeSlide) -> Cells:
    """Scale each axis to 140 cells and round; the first spot of a cell wins; a spot without counts is none."""
    kept = [i for i in range(len(slide.spots)) if sum(slide.spots[i].values()) > 0]
    low = [min(slide.xy[i][axis] for i in kept) for axis in (0, 1)]
    high = [max(slide.xy[i][axis] for i in kept) for axis in (0, 1)]
    cells: Cells = {}
    for i in kept:
        column, row = (
            round((slide.xy[i][axis] - low[axis]) / (high[axis] - low[axis]) * (SIDE - 1)) for axis in (0, 1)
        )
        if (row, column) not in cells:
            cells[row, column] = i
    return cells


def window_spots(cells: Cells, row: int, column: int, size: int = 16) -> Cells:
    """Return the spots of a window, by their place in it."""
    found: Cells = {}
    for i in range(size):
        for j in range(size):
            if (row + i, column + j) in cells:
                found[i, j] = cells[row + i, column + j]
    return found


def patch_counts(slide: RecipeSlide, spots: Cells, channels: Sequence[str | None], size: int = 16) -> NDArray[np.int64]:
    """Return (channels, size, size) counts in the order given; a channel of None is padding."""
    patch = np.zeros((len(channels), size, size), np.int64)
    for (i, j), spot in spots.items():
        for channel, gene in enumerate(channels):
            if gene is not None:
                patch[channel, i, j] = slide.spots[spot].get(gene, 0)
    return patch


def patch_totals(slide: RecipeSlide, spots: Cells, size: int = 16) -> NDArray[np.int64]:
    """Return (size, size) counts over all genes."""
    totals = np.zeros((size, size), np.int64)
    for (i, j), spot in spots.items():
        totals[i, j] = sum(slide.spots[spot].values())
    return totals


def patch_values(counts: NDArray[np.int64], totals: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (channels, size, size) log1p of 10,000-totals, in double precision."""
    values = np.zeros(counts.shape)
    for channel, i, j in zip(*np.nonzero(counts), strict=True):
        values[channel, i, j] = math.log1p(counts[channel, i, j] * TARGET / totals[i, j])
    return values


def gene_variances(slide: RecipeSlide, spots: Cells) -> dict[str, float]:
    """Return every measured gene's variance over the window's spots."""
    logs: dict[str, list[float]] = {}
    for spot in spots.values():
        total = sum(slide.spots[spot].values())
        for gene, count in slide.spots[spot].items():
            logs.setdefault(gene, []).append(math.log1p(count * TARGET / total))
    variances = dict.fromkeys(slide.genes, 0.0)
    for gene, values in logs.items():
        values = values + [0.0] * (len(spots) - len(values))
        mean = math.fsum(values) / len(values)
        variances[gene] = math.fsum((value - mean) ** 2 for value in values) / len(values)
    return variances


def write_corpus(
    folder: Path, groups: Mapping[str, tuple[NDArray[np.int64], NDArray[np.float64]]], vocabulary: Mapping[str, int]
) -> Path:
    """Write ``corpus.h5``, one group a slide, and ``vocab.json``; return the first.

    Parameters
    ----------
    groups
        Name -> (spots, genes) counts of all genes of the vocabulary but ``<pad>``, by id, and (spots, 2) coordinates.
    vocabulary
        Gene -> id, with ``<pad>``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ids = sorted(number for gene, number in vocabulary.items() if gene != "<pad>")
    with h5py.File(folder / "corpus.h5", "w") as file:
        for name, (counts, xy) in groups.items():
            group = file.create_group(name)
            group["expr_map"] = counts.astype(np.float32)
            group["coords_map"] = np.asarray(xy, np.float64)
            group["vocab_index"] = np.array(ids)
    (folder / "vocab.json").write_text(json.dumps(dict(vocabulary)))
    return folder / "corpus.h5"
