"""Visium: a Space Ranger folder, with its matrix as HDF5 or MEX and its positions in any of their variants."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.config import IngestSection
from stpatch.errors import InputError, InputMissingError
from stpatch.slides.formats.hdf5.files import looks_hdf5
from stpatch.slides.formats.names import check_unique
from stpatch.slides.formats.tenx.aggr import aggr_libraries, aggr_positions, library_column
from stpatch.slides.formats.tenx.lattice import PITCH_UM, TOLERANCE, check_parity, row_column_ratio
from stpatch.slides.formats.tenx.mex import is_mex
from stpatch.slides.formats.tenx.positions import Positions, find_positions, first_barcode, read_positions
from stpatch.slides.formats.tenx.read import probe_tenx, read_barcodes, read_tenx, tenx_files
from stpatch.slides.geometry import Settled, settle
from stpatch.slides.readers.registry import register
from stpatch.slides.selection import SUFFIX, barcode_parts, refuse_joined, select_rows, wishes_of
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource

MATRIX = re.compile(r"(?:.+_)?(?P<kind>filtered|raw)_feature_bc_matrix(?P<h5>\.h5)?")
FOREIGN = 0.1
"""Share of a filtered matrix's barcodes outside tissue from which on the positions are another slide's."""
HD_BARCODE = re.compile(r"s_(?P<um>\d{3})um_\d{5}_\d{5}(-\d+)?")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What belongs together: the matrix (file or folder), the ``spatial`` folder, and how the matrix was chosen."""

    matrix: Path
    spatial: Path
    notes: tuple[str, ...] = ()


@register
class Visium:
    """Reader of Space Ranger's output folder."""

    platform = "visium"

    def probe(self, source: SlideSource, options: IngestSection) -> Probe | None:
        """Recognize a 10x matrix with ``spatial/tissue_positions*`` beside it."""
        layout = _layout_of(source)
        if layout is None:
            return None
        positions = source.coordinates or find_positions(layout.spatial) or aggr_positions(layout.matrix.parent)
        if positions is None:
            aggregation = aggr_libraries(layout.matrix.parent)
            raise InputMissingError(
                "the Space Ranger folder has no positions"
                if aggregation is None
                else "this is output of spaceranger aggr without the positions of its spots",
                where=layout.spatial,
                expected="spatial/tissue_positions.csv, tissue_positions_list.csv or tissue_positions.parquet"
                + ("" if aggregation is None else ", or aggr_tissue_positions.csv beside the matrix"),
                hint=None if aggregation is None else f"give the single runs that {aggregation.name} lists",
            )
        if HD_BARCODE.fullmatch(first_barcode(positions)):
            return None
        _, n_genes, version = probe_tenx(layout.matrix)
        placed = _places(layout, positions, source, options)
        aggregation = aggr_libraries(layout.matrix.parent)
        return Probe(
            platform=self.platform,
            reason=f"{positions.parent.name}/{positions.name} beside {layout.matrix.name}",
            files=(*tenx_files(layout.matrix), *([] if aggregation is None else [aggregation]), positions),
            version=version,
            n_spots=int(placed.own.sum()),
            n_genes=n_genes,
            unit="px",
            pitch_um=placed.settled.pitch_um or (PITCH_UM if placed.settled.geometry == "hex" else None),
            um_per_unit=placed.settled.um_per_unit,
            geometry=placed.settled.geometry,
            notes=(*layout.notes, *placed.notes),
        )

    def read(self, source: SlideSource, options: IngestSection, probe: Probe) -> RawSlide:
        """Read matrix and positions, joined by barcode."""
        layout = _layout_of(source)
        if layout is None:
            raise InputError(
                "this is no Space Ranger folder", where=source.path, hint="give the outs folder, or another platform"
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
            notes=(*layout.notes, *placed.notes),
            dropped={"no counts": {"spots": placed.empty, "counts": 0}} if placed.empty else {},
        )


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
    positions = _own_positions(positions, barcodes, own)
    rows = join_positions(barcodes[own], positions, matrix=layout.matrix, where=file)
    notes += refuse_joined(
        positions.xy[rows],
        {name: column[own] for name, column in columns.items()},
        barcodes[own],
        where=f"{layout.matrix}, positions in {file.name}",
        array=positions.array[rows] if options.places != "coordinates" else None,
    )
    outside = int((~positions.in_tissue[rows]).sum())
    if outside and _is_filtered(layout.matrix) and options.qc.in_tissue:
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


def _layout_of(source: SlideSource) -> Layout | None:
    """Return what belongs together where the samplesheet's column coordinates may name the positions."""
    path, positions = source.path, source.coordinates
    if positions is None:
        if path.is_file() and MATRIX.fullmatch(path.name) and aggr_positions(path.parent) is not None:
            return Layout(matrix=path, spatial=path.parent / "spatial")
        return find_layout(path)
    if not positions.is_file() or not _is_positions(positions):
        return find_layout(path) if path.is_dir() or find_positions(path.parent / "spatial") else None
    if path.is_file():
        is_matrix = MATRIX.fullmatch(path.name) is not None or (path.suffix == ".h5" and looks_hdf5(path))
        return Layout(matrix=path, spatial=positions.parent) if is_matrix else None
    if is_mex(path):
        return Layout(matrix=path, spatial=positions.parent)
    layout = layout_in(path, positions=positions)
    return layout or (layout_in(path / "outs", positions=positions) if (path / "outs").is_dir() else None)


def _is_positions(path: Path) -> bool:
    try:
        return bool(first_barcode(path))
    except InputError:
        return False


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


def _own_positions(positions: Positions, barcodes: NDArray[np.object_], own: NDArray[np.bool_]) -> Positions:
    """Return the positions of the slide's own sections: those whose suffix one of its barcodes has."""
    if own.all():
        return positions
    suffixes, kept = barcode_parts(positions.barcodes).get(SUFFIX), barcode_parts(barcodes[own]).get(SUFFIX)
    if suffixes is None or kept is None:
        return positions
    part = np.isin(suffixes.astype(str), sorted(set(kept.astype(str))))
    return Positions(
        barcodes=positions.barcodes[part],
        in_tissue=positions.in_tissue[part],
        array=positions.array[part],
        xy=positions.xy[part],
    )


def _is_filtered(matrix: Path) -> bool:
    match = MATRIX.fullmatch(matrix.name)
    return match is not None and match["kind"] == "filtered"


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


def find_layout(path: Path) -> Layout | None:
    """Return matrix and ``spatial`` folder of `path`: the outs folder, its parent, the matrix itself or its folder.

    Filtered goes before raw, HDF5 before MEX; what else there was is noted.

    Raises
    ------
    InputMissingError
        There is a matrix by Space Ranger's name but no ``spatial`` folder, or the other way round.
    """
    if path.is_file():
        is_matrix = MATRIX.fullmatch(path.name) is not None or (path.suffix == ".h5" and looks_hdf5(path))
        spatial = path.parent / "spatial"
        return Layout(matrix=path, spatial=spatial) if is_matrix and find_positions(spatial) else None
    if (path / "binned_outputs").is_dir():
        return None
    if is_mex(path):
        beside = next((place / "spatial" for place in (path, path.parent) if (place / "spatial").is_dir()), None)
        return None if beside is None else Layout(matrix=path, spatial=beside)
    for folder in (path, path / "outs"):
        layout = layout_in(folder)
        if layout is not None:
            return layout
    return None


def layout_in(folder: Path, *, positions: Path | None = None) -> Layout | None:
    """Return matrix and ``spatial`` of the folder that holds them, None where there is neither; see `find_layout`.

    Where `positions` are named, their folder stands for ``spatial``.
    """
    if not folder.is_dir():
        return None
    found: dict[tuple[str, bool], list[Path]] = {}
    for item in sorted(folder.iterdir()):
        match = MATRIX.fullmatch(item.name)
        if match and (item.is_file() if match["h5"] else item.is_dir() and is_mex(item)):
            found.setdefault((match["kind"], bool(match["h5"])), []).append(item)
    spatial = folder / "spatial" if positions is None else positions.parent
    if not found:
        if spatial.is_dir() and find_positions(spatial):
            raise InputMissingError(
                "the folder has positions but no matrix",
                where=folder,
                expected="filtered_feature_bc_matrix.h5, raw_feature_bc_matrix.h5 or a folder of that name with "
                "matrix.mtx, features.tsv and barcodes.tsv",
            )
        return None
    if not spatial.is_dir() and aggr_positions(folder) is None:
        raise InputMissingError("the folder has a matrix but no positions", where=folder, expected="a folder spatial")
    best = next(key for key in (("filtered", True), ("filtered", False), ("raw", True), ("raw", False)) if key in found)
    if len(found[best]) > 1:
        raise InputError(
            "the folder has several matrices",
            where=folder,
            found=", ".join(item.name for item in found[best]),
            hint="name one of them in the samplesheet, or keep each sample in a folder of its own",
        )
    matrix = found[best][0]
    others = [item.name for key, items in found.items() if key != best for item in items]
    note = f"read {matrix.name}; left {', '.join(others)} (filtered goes before raw, HDF5 before MEX)"
    return Layout(matrix=matrix, spatial=spatial, notes=(note,) if others else ())


def join_positions(
    barcodes: NDArray[np.object_], positions: Positions, *, matrix: Path, where: Path
) -> NDArray[np.intp]:
    """Return the positions' row of each barcode; one without a position is an `InputError`."""
    rows = pd.Index(positions.barcodes).get_indexer(pd.Index(barcodes))
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        raise InputError(
            "barcodes of the matrix have no position: the positions are of another slide"
            if len(missing) == len(rows)
            else "barcodes of the matrix have no position",
            where=f"{where}, for {matrix.name}",
            found=f"{len(missing)} of {len(rows)} barcodes, such as {barcodes[missing[0]]}",
            expected="a row for each barcode",
            hint="put the positions of this very slide into its spatial folder",
        )
    return rows


def _empty_spots(positions: Positions, rows: NDArray[np.intp]) -> tuple[tuple[str, ...], int]:
    """Return a note on positions without a matrix column, and how many of them are in tissue."""
    without = np.ones(len(positions.barcodes), bool)
    without[rows] = False
    in_tissue = int((without & positions.in_tissue).sum())
    if not without.any():
        return (), 0
    return (f"{int(without.sum())} positions have no column in the matrix, {in_tissue} of them in tissue",), in_tissue
