"""Where one slide comes from, and what a reader found there by looking at headers alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class SlideSource:
    """One row of the samplesheet.

    Attributes
    ----------
    slide_id
        Unique in the corpus, safe as a file name.
    path
        The file or folder.
    platform
        ``auto`` or a platform's name.
    organism, split
        "" where not given.
    coordinates
        The table of places (positions, cells, spots), where the layout does not fix its name and place.
    matrix, transcripts
        The file of counts and the table of molecules, where their names are not the platform's.
    labels
        A label table, joined to the spots by id.
    metadata
        All other columns (tissue, donor, ...), as text.
    where
        Samplesheet and row, for messages.
    """

    slide_id: str
    path: Path
    platform: str = "auto"
    organism: str = ""
    split: str = ""
    coordinates: Path | None = None
    matrix: Path | None = None
    transcripts: Path | None = None
    labels: Path | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a look at the headers tells; None = not known without reading the matrix.

    Attributes
    ----------
    platform
        The platform that recognized the files.
    version
        Vendor version, "" where unknown.
    reason
        Why it was recognized, one phrase: ``"spatial/tissue_positions.csv beside a 10x matrix"``.
    files
        Every file that `read` will open; their sizes and checksums make the slide's fingerprint.
    n_spots, n_genes
        Rows and columns of the matrix before QC.
    unit
        The coordinate unit: ``um``, ``px``, ``array``, ``mm`` or ``unknown``.
    pitch_um, um_per_unit
        Where known from headers.
    spot_columns
        Columns of the spot table that may become labels, where headers tell.
    path
        The folder in which the files were found, where it is not the source's own but lies below it.
    geometry
        How the spots lie, where places were looked at: then `pitch_um` and `um_per_unit` are what `read` will give,
        and ``irregular`` means that there is no lattice.
    notes
        What was assumed, picked or left out, one sentence each; they go to the record and to the screen.
    """

    platform: str
    reason: str
    files: tuple[Path, ...]
    version: str = ""
    n_spots: int | None = None
    n_genes: int | None = None
    unit: str = "unknown"
    pitch_um: float | None = None
    um_per_unit: float | None = None
    spot_columns: tuple[str, ...] | None = None
    path: Path | None = None
    geometry: str = ""
    notes: tuple[str, ...] = ()
