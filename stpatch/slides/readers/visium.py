"""Visium: a Space Ranger folder, with its matrix as HDF5 or MEX and its positions in any of their variants."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.config import IngestSection
from stpatch.errors import InputError
from stpatch.slides.formats.barcodes import join_barcodes
from stpatch.slides.formats.names import check_unique, listed
from stpatch.slides.formats.tenx.aggr import aggr_libraries, library_column
from stpatch.slides.formats.tenx.lattice import PITCH_UM, TOLERANCE, check_parity, row_column_ratio
from stpatch.slides.formats.tenx.layout import (
    MATRIX,
    PORTAL,
    Layout,
    layout_in,
    layout_of_file,
    layout_of_folder,
    layout_of_named,
)
from stpatch.slides.formats.tenx.mex import is_mex
from stpatch.slides.formats.tenx.positions import Positions, first_barcode, read_positions
from stpatch.slides.formats.tenx.read import probe_tenx, read_barcodes, read_tenx, tenx_files
from stpatch.slides.geometry import Settled, settle
from stpatch.slides.readers.registry import register
from stpatch.slides.selection import SUFFIX, barcode_parts, refuse_joined, select_rows, wishes_of
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource

FOREIGN = 0.1
"""Share of a filtered matrix's barcodes outside tissue from which on the positions are another slide's."""
HD_BARCODE = re.compile(r"s_(?P<um>\d{3})um_\d{5}_\d{5}(-\d+)?")


@register
class Visium:
    """Reader of Space Ranger's output folder."""

    platform = "visium"

    def probe(self, source: SlideSource, options: IngestSection) -> Probe | None:
        """Recognize a 10x matrix with ``spatial/tissue_positions*`` beside it."""
        layout = find_layout(source.path, coordinates=source.coordinates, matrix=source.matrix)
        if layout is None or layout.positions is None:
            return None
        positions = layout.positions
        if HD_BARCODE.fullmatch(first_barcode(positions)):
            return None
        _, n_genes, version = probe_tenx(layout.matrix)
        placed = _places(layout, positions, source, options)
        aggregation = aggr_libraries(layout.matrix.parent)
        return Probe(
            platform=self.platform,
            reason=f"{_shown(positions, layout.matrix)} beside {layout.matrix.name}",
            files=(*tenx_files(layout.matrix), *([] if aggregation is None else [aggregation]), positions),
            version=version,
            n_spots=int(placed.own.sum()),
            n_genes=n_genes,
            unit="px",
            pitch_um=placed.settled.pitch_um or (PITCH_UM if placed.settled.geometry == "hex" else None),
            spot_columns=("in_tissue",),
            um_per_unit=placed.settled.um_per_unit,
            geometry=placed.settled.geometry,
            notes=(*layout.notes, *placed.notes),
        )

    def read(self, source: SlideSource, options: IngestSection, probe: Probe) -> RawSlide:
        """Read matrix and positions, joined by barcode."""
        layout = find_layout(source.path, coordinates=source.coordinates, matrix=source.matrix)
        if layout is None:
            raise InputError(
                "this is not a Space Ranger folder", where=source.path, hint="give the outs folder, or another platform"
            )
        matrix = read_tenx(layout.matrix)
        *_, file = probe.files
        placed = _places(layout, file, source, options)
        settled, positions, rows = placed.settled, placed.positions, placed.rows
        return RawSlide(
            counts=matrix.counts if placed.own.all() else matrix.counts[placed.own],
            spot_ids=matrix.barcodes[placed.own],
            genes=matrix.genes,
            xy=positions.xy[rows],
            array=None if settled.array is None else settled.array[rows],
            geometry=settled.geometry,
            um_per_unit=settled.um_per_unit,
            pitch=settled.pitch,
            spots=pd.DataFrame({"in_tissue": positions.in_tissue[rows]}),
            version=matrix.version,
            notes=(*layout.notes, *matrix.notes, *placed.notes),
            dropped={"no counts": {"spots": placed.empty, "counts": 0}} if placed.empty else {},
        )


def _shown(positions: Path, matrix: Path) -> str:
    return positions.name if positions.parent == matrix.parent else f"{positions.parent.name}/{positions.name}"


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """The slide's own barcodes and their places.

    Attributes
    ----------
    own
        (barcodes of the matrix,) which are the slide's.
    rows
        (own barcodes,) row of `positions`, which are the slide's own alone.
    empty
        Positions in tissue without a column in the matrix.
    """

    own: NDArray[np.bool_]
    positions: Positions
    rows: NDArray[np.intp]
    settled: Settled
    empty: int
    notes: tuple[str, ...]


def _places(layout: Layout, file: Path, source: SlideSource, options: IngestSection) -> _Placed:
    """Pick the slide's barcodes, join them to their positions, and settle the lattice; no counts are read."""
    barcodes = read_barcodes(layout.matrix)
    check_unique(barcodes, what="a barcode", where=layout.matrix)
    positions = read_positions(file)
    columns = _section_columns(layout, barcodes)
    picked, notes = select_rows(columns, barcodes, wishes_of(source, options), where=layout.matrix)
    own = np.ones(len(barcodes), bool) if picked is None else picked
    positions = _own_positions(positions, barcodes, own, source=source, file=file)
    rows, join_notes = join_positions(barcodes[own], positions, matrix=layout.matrix, where=file)
    notes += join_notes
    notes += refuse_joined(
        positions.xy[rows],
        {name: column[own] for name, column in columns.items()},
        barcodes[own],
        where=f"{layout.matrix}, positions in {file.name}",
        array=positions.array[rows] if options.places != "coordinates" else None,
    )
    outside = int((~positions.in_tissue[rows]).sum())
    if outside and layout.is_filtered and options.qc.in_tissue:
        notes += _foreign(outside, len(rows), file)
    hexagonal = options.places != "coordinates" and not _is_square(positions)
    if hexagonal:
        check_parity(positions.array, positions.barcodes, where=file)
    settled = settle(
        positions.xy,
        positions.array,
        ids=positions.barcodes,
        options=options,
        where=file,
        visium=hexagonal or None,
        hexagonal=hexagonal,
    )
    if not hexagonal and options.places != "coordinates":
        notes += ("array indices lie on a square lattice, not on Visium's",)
    more, empty = _empty_spots(positions, rows)
    return _Placed(
        own=own, positions=positions, rows=rows, settled=settled, empty=empty, notes=(*notes, *settled.notes, *more)
    )


def _section_columns(layout: Layout, barcodes: NDArray[np.object_]) -> dict[str, pd.Series]:
    """Return what tells the sections of joined runs apart: the barcodes' suffixes, and aggr's libraries by them."""
    suffixes = barcode_parts(barcodes).get(SUFFIX)
    if suffixes is None or len(set(suffixes)) < 2:
        return {}
    columns: dict[str, pd.Series] = {}
    table = aggr_libraries(layout.matrix.parent)
    library = None if table is None else library_column(table, suffixes)
    if library is not None:
        columns["library_id"] = library
    return {**columns, SUFFIX: pd.Series(suffixes, dtype=object)}


def _own_positions(
    positions: Positions, barcodes: NDArray[np.object_], own: NDArray[np.bool_], *, source: SlideSource, file: Path
) -> Positions:
    """Return the positions of the slide's own sections: those whose suffix one of its barcodes has.

    A table without suffixes, or one that the samplesheet names, may be of one run alone: then it counts whole.
    """
    if own.all():
        return positions
    suffixes, kept = barcode_parts(positions.barcodes).get(SUFFIX), barcode_parts(barcodes[own]).get(SUFFIX)
    if suffixes is None or kept is None:
        return positions
    part = np.isin(suffixes.astype(str), sorted(set(kept.astype(str))))
    if not part.any() and (not any(suffixes) or source.coordinates is not None):
        return positions  # of one run, whose suffix was its own
    if not part.any():
        raise InputError(
            "the positions have none of the picked rows' barcodes",
            where=file,
            found=f"suffixes {listed(sorted(set(suffixes.astype(str))))}",
            expected=f"{listed(sorted(set(kept.astype(str))))}, as the picked rows have",
            hint="name the positions of the picked run in the samplesheet's column coordinates",
        )
    return Positions(
        barcodes=positions.barcodes[part],
        in_tissue=positions.in_tissue[part],
        array=positions.array[part],
        xy=positions.xy[part],
    )


def _foreign(outside: int, n_spots: int, file: Path) -> tuple[str, ...]:
    """Return a note on barcodes of a filtered matrix that lie outside tissue; many of them are an `InputError`."""
    if outside > FOREIGN * n_spots:
        raise InputError(
            "the filtered matrix holds barcodes that the positions put outside tissue: they are of another slide",
            where=file,
            found=f"{outside} of {n_spots} barcodes have in_tissue 0",
            expected="in_tissue 1 for each barcode of a filtered matrix",
            hint="give the positions of this very slide; or keep all spots with ingest.qc.in_tissue: false; "
            "or, where in_tissue was edited by hand, name the raw matrix as the slide's path",
        )
    return (f"{outside} of {n_spots} barcodes of the filtered matrix are outside tissue by {file.name}: dropped",)


def _is_square(positions: Positions) -> bool:
    """Whether the array is a square lattice (DBiT-seq and others in Space Ranger's layout): all parities, one step."""
    array = positions.array
    odd = (array[:, 0] - array[:, 1]) % 2 != 0
    if not 0.2 < odd.mean() < 0.8:
        return False
    ratio = row_column_ratio(array, positions.xy)
    return ratio is not None and abs(ratio - 1) < TOLERANCE


def find_layout(path: Path, *, coordinates: Path | None = None, matrix: Path | None = None) -> Layout | None:
    """Return matrix and positions of `path`: the outs folder, its parent, the matrix itself or its folder.

    Parameters
    ----------
    coordinates, matrix
        The positions table and the matrix, where the samplesheet names them.

    Raises
    ------
    InputError
        See `stpatch.slides.formats.tenx.layout.layout_in`.
    """
    if matrix is not None and path.is_dir():
        return layout_of_named(matrix, folder=path, coordinates=coordinates)
    if path.is_file():
        return layout_of_file(path, coordinates=coordinates)
    if (path / "binned_outputs").is_dir():
        return None
    if is_mex(path):
        for folder in (path, path.parent):
            if folder == path.parent and not (folder / "spatial").is_dir() and not PORTAL.fullmatch(path.name):
                continue
            match = PORTAL.fullmatch(path.name) or MATRIX.fullmatch(path.name)
            prefix = (match["prefix"] or "") if match is not None and folder == path.parent else None
            layout = (
                layout_in(folder, coordinates=coordinates)
                if prefix is None
                else layout_of_folder(path, prefix=prefix, coordinates=coordinates)
            )
            if layout is not None and layout.positions is not None:
                return layout
        return None
    for folder in (path, path / "outs"):
        layout = layout_in(folder, coordinates=coordinates)
        if layout is not None:
            return layout
    return None


def join_positions(
    barcodes: NDArray[np.object_], positions: Positions, *, matrix: Path, where: Path
) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """Return the positions' row of each barcode, and the note on a join that left off a suffix, prefix or quotes.

    Raises
    ------
    InputError
        A barcode has no position.
    """
    join = join_barcodes(barcodes, positions.barcodes)
    rows = join.rows
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        raise InputError(
            "barcodes of the matrix have no position: the positions are of another slide"
            if len(missing) == len(rows)
            else "barcodes of the matrix have no position",
            where=f"{where}, for {matrix.name}",
            found=f"{len(missing)} of {len(rows)} barcodes, such as {barcodes[missing[0]]}; the positions have "
            f"barcodes such as {positions.barcodes[0]}",
            expected="a row for each barcode",
            hint="put the positions of this very slide into its spatial folder",
        )
    return rows, (join.note,) if join.note else ()


def _empty_spots(positions: Positions, rows: NDArray[np.intp]) -> tuple[tuple[str, ...], int]:
    """Return a note on positions without a matrix column, and how many of them are in tissue."""
    without = np.ones(len(positions.barcodes), bool)
    without[rows] = False
    in_tissue = int((without & positions.in_tissue).sum())
    if not without.any():
        return (), 0
    return (f"{int(without.sum())} positions have no column in the matrix, {in_tissue} of them in tissue",), in_tissue
