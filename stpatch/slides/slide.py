"""The two nouns of this room: what a reader returns, and the canonical slide that every later stage works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

Geometry = Literal["square", "hex", "irregular"]
"""How spots lie: on a square lattice, on Visium's hexagonal one, or anywhere."""

_UINT16_NUMBERS = 2**16

GENE_COLUMNS = ("name", "ensembl_id", "feature_type")


@dataclass(frozen=True, kw_only=True)
class RawSlide:
    """What a reader returns: the vendor's numbers as they are, before gene harmonization and QC.

    Attributes
    ----------
    counts
        CSR, (spots, genes). Integer dtype (uint16, uint32, int32 or int64); float32 only with
        ``ingest.values: normalized``. No negative, no NaN. Spots in the files' order. Column numbers are int32, or
        as narrow as `gene_number_dtype` says.
    spot_ids
        (spots,) text ids, unique.
    genes
        One row a column of `counts`, RangeIndex; text columns ``name``, ``ensembl_id`` and ``feature_type``, each
        ``""`` where unknown. Names may repeat.
    xy
        (spots, 2) float64, finite, in coordinate units; x to the right, y down.
    array
        (spots, 2) int32 ``(array_row, array_col)`` where the platform has array indices, else None.
    geometry
        ``square``: (array_row, array_col) are pixels. ``hex``: Visium's (``array_col`` has the parity of
        ``array_row``). ``irregular``: no lattice.
    um_per_unit
        Micrometres per coordinate unit, None where unknown.
    pitch
        Distance of neighbouring spots in coordinate units, None where there is none.
    spots
        One row a spot, RangeIndex. ``in_tissue`` (bool) and ``area`` (float, um2 or um3) where the platform has them;
        any further columns may become labels.
    control_patterns
        Regular expressions (full match, any case) of the platform's control names, for when feature types are missing.
    version
        Version of the vendor's software or layout, "" where unknown.
    notes
        Corrections that the reader made, one sentence each; they go to the record and the report.
    dropped
        What the reader itself left out, by reason: ``{"background": {"spots": 3, "counts": 812}}``.
    """

    counts: sparse.csr_matrix
    spot_ids: NDArray[np.object_]
    genes: pd.DataFrame
    xy: NDArray[np.float64]
    array: NDArray[np.int32] | None = None
    geometry: Geometry = "irregular"
    um_per_unit: float | None = None
    pitch: float | None = None
    spots: pd.DataFrame = field(default_factory=pd.DataFrame)
    control_patterns: tuple[str, ...] = ()
    version: str = ""
    notes: tuple[str, ...] = ()
    dropped: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Slide:
    """A canonical slide: harmonized genes, spots that passed QC, rows ordered by place.

    Attributes
    ----------
    slide_id, platform, organism
        Texts; organism is "" where unknown.
    counts
        CSR, (spots, genes), sorted indices of `gene_number_dtype`, no stored zeros; uint16, or uint32 where a count
        needs it (float32 with ``ingest.values: normalized``).
    genes
        One row a measured gene. Index ``gene`` (the identity, unique); text columns ``name`` and ``ensembl_id``.
    spot_ids, xy, array, geometry, um_per_unit, pitch
        As in `RawSlide`, rows ordered by ``(array_row, array_col)`` or by rows of pitch height, then x.
    labels
        One categorical column a label (missing = no label).
    metadata
        Further columns of the samplesheet, as text.
    file_row
        (spots,) int64, the spots' order in the files they came from: the first of a place is the one that the files
        name first. None: the order of the rows.
    record
        What happened on the way in, as JSON values: version, reason of recognition, notes, dropped counts by reason,
        gene matching, totals.
    """

    slide_id: str
    platform: str
    organism: str
    counts: sparse.csr_matrix
    genes: pd.DataFrame
    spot_ids: NDArray[np.object_]
    xy: NDArray[np.float64]
    array: NDArray[np.int32] | None
    geometry: Geometry
    um_per_unit: float | None
    pitch: float | None
    labels: pd.DataFrame
    metadata: Mapping[str, str]
    record: Mapping[str, Any]
    file_row: NDArray[np.int64] | None = None

    @property
    def n_spots(self) -> int:
        """Number of spots."""
        return int(self.counts.shape[0])

    @property
    def n_genes(self) -> int:
        """Number of measured genes."""
        return int(self.counts.shape[1])


def gene_number_dtype(n_genes: int) -> np.dtype[Any]:
    """Return the dtype of a matrix's column numbers: uint16 where they fit, else int32."""
    return np.dtype(np.uint16 if n_genes <= _UINT16_NUMBERS else np.int32)
