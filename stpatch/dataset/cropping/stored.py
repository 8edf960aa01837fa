"""A slide as a croppable dataset holds it: counts per spot in tile order, and what a window needs to know of a spot.

Spots rather than pixels are stored, so that any coarser grid can be laid over them exactly, labels are counted by spot
at every pitch, and the slide can be had back as AnnData.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset.planes import LABEL
from stpatch.image.tiles import tile_order
from stpatch.kernels.window import GeneNumbers

ALL_GENES = -1
"""The only entry of `StoredSlide.channels` where a patch rule may draw from all genes."""

SPOTS = {
    "spot_id": "string",
    "x": "float64",  # coordinate units
    "y": "float64",
    "array_row": "int32?",  # of the platform's array
    "array_col": "int32?",
}
"""Columns of a slide's spots.parquet, one row per spot in the order of the arrays."""


@dataclass(frozen=True, kw_only=True)
class StoredSlide:
    """A whole slide, spots in tile order.

    Attributes
    ----------
    slide_id
        The slide.
    grid_shape
        (rows, columns) of the grid.
    counts, genes, indptr
        CSR counts (spots, genes): (values,) uint16 or uint32, (values,) gene numbers, (spots + 1,) int64.
    gene_ids
        (genes,) int32 vocabulary id of each gene number.
    channels
        (n,) int32 gene ids: the slide's channels in order (scope panel or slide), or the candidates of its patch rule;
        `ALL_GENES` alone where the rule has none.
    pixels
        (spots, 2) int32 row and column of each spot's pixel; -1 where the grid dropped the spot.
    totals
        (spots,) float64 counts over all genes, those outside the vocabulary included.
    largest
        (spots,) uint32, each spot's largest count.
    labels
        (spots,) int16 category number by label map, -1 for none.
    spots
        Columns of `SPOTS`.
    facts
        geometry, um_per_unit and pitch, as JSON values.
    """

    slide_id: str
    grid_shape: tuple[int, int]
    counts: NDArray[Any]
    genes: GeneNumbers
    indptr: NDArray[np.int64]
    gene_ids: NDArray[np.int32]
    channels: NDArray[np.int32]
    pixels: NDArray[np.int32]
    totals: NDArray[np.float64]
    largest: NDArray[np.uint32]
    labels: Mapping[str, NDArray[np.int16]] = field(default_factory=dict)
    spots: Mapping[str, Sequence[Any] | NDArray[Any]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name, in their order on disk."""
        names = ("counts", "genes", "indptr", "gene_ids", "channels", "pixels", "totals", "largest")
        arrays = {name: getattr(self, name) for name in names}
        return arrays | {f"{LABEL}{name}": codes for name, codes in sorted(self.labels.items())}


def array_names(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a slide's arrays, given those of its label maps."""
    names = ("counts", "genes", "indptr", "gene_ids", "channels", "pixels", "totals", "largest")
    return (*names, *(f"{LABEL}{name}" for name in sorted(labels)))


def stored_counts(
    counts: tuple[NDArray[Any], GeneNumbers, NDArray[np.int64]],
    gene_ids: NDArray[np.int32],
    pixel: NDArray[np.int64],
    columns: int,
) -> tuple[NDArray[np.int64], NDArray[Any], GeneNumbers, NDArray[np.int64], NDArray[np.int32]]:
    """Bring a slide's counts to tile order, without genes outside the vocabulary.

    Parameters
    ----------
    counts
        CSR data, indices and indptr, (spots, genes).
    gene_ids
        (genes,) int32 vocabulary ids, -1 outside of it.
    pixel
        (spots,) int64 flat pixel of each spot, -1 for none.
    columns
        Of the grid.

    Returns
    -------
    order, data, indices, indptr, gene_ids
        `order` (spots,) is each stored spot's row in `counts`; the others are as in `StoredSlide`.
    """
    data, indices, indptr = counts
    order = tile_order(pixel, columns)
    lengths = np.diff(indptr)[order]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    # where each stored value lies: the beginning of its row, and its place in the row
    source = np.repeat(np.asarray(indptr)[order] - starts[:-1], lengths) + np.arange(starts[-1])
    new_data, new_indices = np.asarray(data)[source], np.asarray(indices)[source]
    known = gene_ids >= 0
    if known.all():
        return order, new_data, new_indices, starts, gene_ids
    number = np.cumsum(known) - 1
    kept = known[new_indices]
    row = np.repeat(np.arange(len(lengths)), lengths)[kept]
    new_indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(lengths)))]).astype(np.int64)
    narrow = number[new_indices[kept]].astype(new_indices.dtype)
    return order, new_data[kept], narrow, new_indptr, gene_ids[known]
