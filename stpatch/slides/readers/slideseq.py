"""Slide-seq: a table of genes by beads and a table of bead locations.

``MappedDGEForR.csv`` or ``*.digital_expression.txt``, the beads' barcodes as column names, and
``BeadLocationsForR.csv`` or ``*_bead_locations.csv`` (``barcodes, xcoord, ycoord``; also ``barcode, x, y``; or no
header). Curio's h5ad is read as h5ad.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stpatch.config import IngestSection
from stpatch.errors import InputError, InputMissingError
from stpatch.slides.formats.barcodes import BASES
from stpatch.slides.formats.names import check_unique, gene_frame, listed
from stpatch.slides.formats.text.coordinates import Coordinates, has_header, joined_rows, read_coordinates
from stpatch.slides.formats.text.dense import read_dense, transposed
from stpatch.slides.formats.text.lines import Head, head_or_none
from stpatch.slides.readers.registry import register
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource

UM_PER_PIXEL = 0.65
"""The platform's usual microscope pixel; not written in the files, so the config may say otherwise."""

_BARCODE = re.compile(rf"[{BASES}]{{8,}}([-_.]\d+)?")
_SUFFIXED = re.compile(rf"[{BASES}]{{8,}}[-_.]\d+")
_ID_NAMES = {"barcode", "barcodes", "bead", ""}
_XY_NAMES = ({"xcoord", "ycoord"}, {"x", "y"})
_SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
_LOOKED_AT = 50


@register
class SlideSeqReader:
    """Reader of Slide-seq pucks."""

    platform = "slideseq"

    def probe(self, source: SlideSource, options: IngestSection) -> Probe | None:
        """Recognize a table whose columns are bead barcodes, with a table of locations beside it."""
        files = [source.path] if source.path.is_file() else _texts(source.path)
        heads = [head for head in map(head_or_none, files) if head is not None and _is_counts(head)]
        if not heads:
            return None
        if len(heads) > 1:
            raise InputError(
                "the folder holds several tables of genes by beads",
                where=source.path,
                found=listed([head.path.name for head in heads]),
                hint="name the table itself as the slide's path",
            )
        head = heads[0]
        if _SUFFIXED.fullmatch(head.names[1]) and source.coordinates is None and not _beside(head.path):
            return None  # barcodes of another platform
        locations = _locations(source, head.path)
        names = np.array(head.names[1:], dtype=object)
        check_unique(names, what="a barcode", where=head.path)
        placed = _placed(names, source, locations)
        um_per_unit = options.um_per_unit or UM_PER_PIXEL
        return Probe(
            platform=self.platform,
            reason=f"bead barcodes such as {head.names[1]} as columns, with locations in {locations.name}",
            files=(head.path, locations),
            n_spots=len(names),
            unit="px",
            um_per_unit=um_per_unit,
            geometry="irregular" if options.pitch_um is None else "",
            notes=_notes(placed, options),
        )

    def read(self, source: SlideSource, options: IngestSection, probe: Probe) -> RawSlide:
        """Read counts and locations, joined by barcode."""
        path, locations = probe.files
        table = read_dense(path, normalized=options.values == "normalized")
        check_unique(table.names, what="a barcode", where=path)
        placed = _placed(table.names, source, locations)
        counts = transposed(table.counts)
        has_place = placed.rows >= 0
        lost = counts[~has_place]
        dropped = {"no_coordinates": {"spots": int((~has_place).sum()), "counts": int(lost.sum())}}
        um_per_unit = options.um_per_unit or UM_PER_PIXEL
        return RawSlide(
            counts=counts if has_place.all() else counts[has_place],
            spot_ids=table.names[has_place],
            genes=gene_frame(table.row_ids),
            xy=np.ascontiguousarray(placed.beads.xy[placed.rows[has_place]]),
            um_per_unit=um_per_unit,
            pitch=options.pitch_um / um_per_unit if options.pitch_um else None,
            notes=_notes(placed, options),
            dropped={} if has_place.all() else dropped,
        )


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """The table of locations, the row of each bead in it (-1 without one), and how the two were joined."""

    beads: Coordinates
    rows: NDArray[np.int64]
    joins: tuple[str, ...]


def _placed(names: NDArray[np.object_], source: SlideSource, locations: Path) -> _Placed:
    """Join the counts' beads to their locations."""
    beads = read_coordinates(locations)
    if beads.id_column is None:
        raise InputError(
            "the bead locations have no column of barcodes",
            where=locations,
            expected="a column named barcode (or barcodes)",
        )
    rows, joins = joined_rows(names, beads.table[beads.id_column], where=locations)
    if not (rows >= 0).any():
        raise InputError(
            "no bead of the counts has a location: the tables belong to different pucks",
            where=f"slide {source.slide_id}, {locations}",
            found=f"barcodes such as {listed(beads.table[beads.id_column].head(3).tolist())}",
            expected=f"barcodes such as {listed(names[:3])}",
        )
    return _Placed(beads=beads, rows=rows, joins=joins)


def _notes(placed: _Placed, options: IngestSection) -> tuple[str, ...]:
    notes = [] if options.um_per_unit else [f"um per pixel is the platform's usual {UM_PER_PIXEL}, not measured"]
    notes += placed.joins
    if empty := len(placed.beads.table) - int((placed.rows >= 0).sum()):
        notes.append(f"{empty} rows of {placed.beads.path.name} have no counts")
    return tuple(notes)


def _texts(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.name.lower().endswith(_SUFFIXES) and p.is_file())


def _is_counts(head: Head) -> bool:
    names = head.names[1 : _LOOKED_AT + 1]
    return bool(names) and all(_BARCODE.fullmatch(name) for name in names) and len(head.first) == len(head.names)


def _is_locations(path: Path) -> bool:
    head = head_or_none(path)
    if head is None:
        return False
    if not has_header(head):
        return len(head.header) == 3 and _BARCODE.fullmatch(head.header[0]) is not None
    names = {name.lower() for name in head.names}
    return bool(names & _ID_NAMES) and any(pair <= names for pair in _XY_NAMES)


def _beside(counts: Path) -> list[Path]:
    return [path for path in _texts(counts.parent) if path != counts and _is_locations(path)]


def _locations(source: SlideSource, counts: Path) -> Path:
    if source.coordinates is not None:
        if not source.coordinates.is_file():
            raise InputMissingError(
                "there is no such table of bead locations",
                where=source.coordinates,
                hint="check the path in the samplesheet's column coordinates",
            )
        return source.coordinates
    found = _beside(counts)
    if len(found) != 1:
        raise InputError(
            "several tables may be the bead locations" if found else "there is no table of bead locations",
            where=counts.parent,
            found=listed([path.name for path in found]) if found else None,
            expected="one table with the columns barcodes, xcoord, ycoord",
            hint="name it: a coordinates column in the samplesheet",
        )
    return found[0]
