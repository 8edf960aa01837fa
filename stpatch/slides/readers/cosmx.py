"""CosMx flat files: cells of ``exprMat`` and ``metadata``, or the molecules of ``tx`` summed to bins.

Coordinates are global pixels. Where a file has those of its field of view (FOV) alone, the FOV's place is added, as the
vendor's own global columns do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.config import IngestSection
from stpatch.errors import InputError, InputMissingError
from stpatch.slides.formats.molecules.slide import (
    DEFAULT_BIN_UM,
    Block,
    bin_table,
    bins_slide,
    default_bin_note,
    need_molecules,
)
from stpatch.slides.formats.molecules.table import Kind, MoleculeTable, open_molecules
from stpatch.slides.formats.names import gene_frame, listed
from stpatch.slides.formats.parquet import parquet_parts
from stpatch.slides.formats.text.cell_table import (
    cell_numbers,
    cell_places,
    further_columns,
    join_cells,
    named_file,
    need_columns,
    one_file,
    read_cells,
    table_columns,
)
from stpatch.slides.formats.text.dense import read_dense
from stpatch.slides.formats.text.fov import Fovs, Pixel, pixel_of, read_fovs
from stpatch.slides.formats.text.not_genes import genes_alone, id_like, skip_note
from stpatch.slides.readers.registry import register
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource

COUNTS = re.compile(r"(.*_)?exprMat_file\.csv(\.gz)?", re.IGNORECASE)
CELLS = re.compile(r"(.*_)?metadata_file\.(csv(\.gz)?|parquet)", re.IGNORECASE)
FOVS = re.compile(r"(.*_)?fov_positions_file\.csv(\.gz)?", re.IGNORECASE)
MOLECULES = (
    re.compile(r"(.*_)?tx_file\.parquet", re.IGNORECASE),
    re.compile(r"(.*_)?tx_file\.csv", re.IGNORECASE),
    re.compile(r"(.*_)?tx_file\.csv\.gz", re.IGNORECASE),
)
"""The first that is there is read."""
KEY = ("fov", "cell_ID")
LARGEST_ID = 2**53
"""Ids lie below: above, a float no longer tells whole numbers apart."""
CELL_GLOBAL = ("CenterX_global_px", "CenterY_global_px")
CELL_LOCAL = ("CenterX_local_px", "CenterY_local_px")
MOLECULE_GLOBAL = ("x_global_px", "y_global_px")
MOLECULE_LOCAL = ("x_local_px", "y_local_px")
TARGET = "target"
AREA_UM2, AREA_PX = "Area.um2", "Area"
USUAL_IDS = ("", "cell", "cell_id")
"""Columns beside the key that the vendor writes: left out without a word."""
CONTROL_PATTERNS = ("Negative.*", "NegPrb.*", "SystemControl.*", "FalseCode.*")
MAY_MISS = 0.5
"""Share of cells with counts that the metadata may lack (the vendor leaves some out); they are dropped and counted."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """The files of a flat-file folder that matter here."""

    folder: Path
    counts: Path | None
    cells: Path | None
    fovs: Path | None
    molecules: Path | None


@register
class CosMx:
    """Reader of a folder of CosMx flat files."""

    platform = "cosmx"

    def probe(self, source: SlideSource, options: IngestSection) -> Probe | None:
        """Recognize the cell tables, or the molecules, by name and columns."""
        bundle = find_bundle(source.path, named=source)
        if bundle is None:
            return None
        pixel = _pixel(bundle, options)
        pixel_notes = (pixel.note,) if pixel.note else ()
        fovs = () if bundle.fovs is None else (bundle.fovs,)
        if options.bin_um is None and bundle.counts is not None and bundle.cells is not None:
            _cell_place(table_columns(bundle.cells), bundle.cells)
            columns = table_columns(bundle.counts)
            need_columns(columns, KEY, where=bundle.counts)
            return Probe(
                platform=self.platform,
                reason=f"{bundle.counts.name} beside {bundle.cells.name}",
                files=(bundle.counts, *parquet_parts(bundle.cells), *fovs),
                n_genes=len(set(columns) - set(KEY) - set(id_like(columns))),
                unit="px",
                um_per_unit=pixel.um,
                spot_columns=table_columns(bundle.cells),
                geometry="irregular",
                notes=(*pixel_notes, *_skip_note(id_like(columns, without=KEY))),
            )
        molecules = _molecules(bundle, options)
        table = open_molecules(molecules)
        table.need(TARGET)
        _molecule_place(table)
        return Probe(
            platform=self.platform,
            reason=f"{molecules.name} with {TARGET} and places in px",
            files=(*parquet_parts(molecules), *fovs),
            unit="px",
            pitch_um=options.bin_um or DEFAULT_BIN_UM,
            um_per_unit=pixel.um,
            notes=pixel_notes,
        )

    def read(self, source: SlideSource, options: IngestSection, probe: Probe) -> RawSlide:  # noqa: ARG002
        """Read the cells, or stream the molecules into bins of ``ingest.bin_um``."""
        bundle = find_bundle(source.path, named=source)
        if bundle is None:
            raise InputError(
                "this is not a CosMx folder",
                where=source.path,
                hint="give the folder with the flat files, or another platform",
            )
        pixel = _pixel(bundle, options)
        fovs = None if bundle.fovs is None else read_fovs(bundle.fovs)
        if options.bin_um is None and bundle.counts is not None and bundle.cells is not None:
            raw = _read_cells(bundle.counts, bundle.cells, fovs=fovs, pixel=pixel)
        else:
            raw = _read_molecules(_molecules(bundle, options), fovs=fovs, pixel=pixel, bin_um=options.bin_um)
        return replace(raw, notes=(pixel.note, *raw.notes)) if pixel.note else raw


def find_bundle(path: Path, *, named: SlideSource | None = None) -> Bundle | None:
    """Return the bundle that `path` is: a folder, or its ``exprMat`` or ``tx`` file; None where there is none.

    Files that the samplesheet names (`named`) go before those that are found.

    Raises
    ------
    InputError
        A file is there several times, or one of the two cell tables is missing and there are no molecules.
    """
    if path.is_file():
        if any(pattern.fullmatch(path.name) for pattern in MOLECULES):
            fovs = one_file(path.parent, FOVS)
            return Bundle(folder=path.parent, counts=None, cells=None, fovs=fovs, molecules=path)
        if not COUNTS.fullmatch(path.name):
            return None
    folder = path if path.is_dir() else path.parent
    bundle = Bundle(
        folder=folder,
        counts=path if path.is_file() else one_file(folder, COUNTS),
        cells=one_file(folder, CELLS),
        fovs=one_file(folder, FOVS),
        molecules=next((found for pattern in MOLECULES if (found := one_file(folder, pattern))), None),
    )
    if bundle.counts is None and bundle.molecules is None:
        return None
    if named is not None:
        bundle = replace(
            bundle,
            counts=named_file(named.matrix, column="matrix") or bundle.counts,
            cells=named_file(named.coordinates, column="coordinates") or bundle.cells,
            molecules=named_file(named.transcripts, column="transcripts") or bundle.molecules,
        )
    if (bundle.counts is None or bundle.cells is None) and bundle.molecules is None:
        raise InputMissingError(
            "the CosMx folder is incomplete",
            where=folder,
            found=", ".join(item.name for item in (bundle.counts, bundle.cells, bundle.fovs) if item is not None),
            expected="*_exprMat_file.csv and *_metadata_file.csv, or *_tx_file.csv",
        )
    return bundle


def _pixel(bundle: Bundle, options: IngestSection) -> Pixel:
    return pixel_of(None if bundle.fovs is None else read_fovs(bundle.fovs), um_per_unit=options.um_per_unit)


def _molecules(bundle: Bundle, options: IngestSection) -> Path:
    return need_molecules(bundle.molecules, folder=bundle.folder, bin_um=options.bin_um, expected="*_tx_file.csv")


def _cell_place(columns: tuple[str, ...], path: Path) -> tuple[str, str]:
    need_columns(columns, KEY, where=path)
    return _place(columns, CELL_GLOBAL, CELL_LOCAL, path)


def _molecule_place(table: MoleculeTable) -> tuple[str, str]:
    place = _place(table.columns, MOLECULE_GLOBAL, MOLECULE_LOCAL, table.path)
    if place == MOLECULE_LOCAL:
        table.need(KEY[0])
    return table.need(place[0]), table.need(place[1])


def _place(columns: tuple[str, ...], on_slide: tuple[str, str], in_fov: tuple[str, str], path: Path) -> tuple[str, str]:
    for names in (on_slide, in_fov):
        if set(names) <= set(columns):
            return names
    raise InputError(
        "the table has no columns of place",
        where=path,
        found=listed(columns),
        expected=f"{', '.join(on_slide)} (or {', '.join(in_fov)} beside a *_fov_positions_file.csv)",
    )


def _fov_place(fovs: Fovs | None, fov: NDArray[np.float64], *, um: float, where: object) -> NDArray[np.float64]:
    """Return (n, 2) px of the corner of each FOV."""
    if fovs is None:
        raise InputMissingError(
            "the places are those within a FOV, and nothing tells where the FOVs are",
            where=where,
            expected="columns of global px, or a *_fov_positions_file.csv",
        )
    return fovs.corners(fov, um=um, where=where)


def _keys(frame: pd.DataFrame, *, where: object) -> tuple[NDArray[np.object_], NDArray[np.bool_]]:
    """Return ``<fov>_<cell_ID>`` of each row, and whether it is background (cell_ID 0)."""
    numbers = [cell_numbers(frame, name, where=where) for name in KEY]
    for name, values in zip(KEY, numbers, strict=True):
        bad = (values != np.rint(values)) | (values < 0) | (values >= LARGEST_ID)
        if bad.any():
            row = int(np.argmax(bad))
            raise InputError(
                "an id is not a whole number",
                where=f"{where}, column {name}, row {row}",
                found=values[row],
                hint="export the file anew from the vendor's software, or fetch it again",
            )
    fov, cell = (values.astype(np.int64).tolist() for values in numbers)
    keys = np.array([f"{a}_{b}" for a, b in zip(fov, cell, strict=True)], dtype=object)
    return keys, numbers[1] == 0


def _skip_note(names: Sequence[str]) -> tuple[str, ...]:
    return skip_note([name for name in names if name not in USUAL_IDS])


def _read_cells(counts_path: Path, cells_path: Path, *, fovs: Fovs | None, pixel: Pixel) -> RawSlide:
    skipped = id_like(table_columns(counts_path), without=KEY)
    dense = read_dense(counts_path, id_columns=KEY, skip=skipped)
    counts, names, notes = genes_alone(dense.counts, dense.names)
    notes = (*_skip_note(skipped), *notes)
    cells = read_cells(cells_path)
    need_columns(cells.columns, KEY, where=cells_path)
    x, y = place = _cell_place(tuple(cells.columns), cells_path)
    keys, background = _keys(dense.ids, where=counts_path)
    cell_keys, no_cell = _keys(cells, where=cells_path)
    cells, cell_keys = cells[~no_cell].reset_index(drop=True), cell_keys[~no_cell]
    rows = np.full(len(keys), -1, np.intp)
    rows[~background], dropped = join_cells(
        keys[~background], cell_keys, counts=counts_path, cells=cells_path, may_miss=MAY_MISS
    )
    xy = cell_places(cells, (x, y), rows=rows, where=cells_path)
    if place == CELL_LOCAL:
        fov = cell_numbers(cells, KEY[0], where=cells_path)
        xy += _fov_place(fovs, fov, um=pixel.um, where=cells_path)
    spots = further_columns(
        cells, rows=rows[rows >= 0], without=(KEY[1], *CELL_GLOBAL, *CELL_LOCAL), area=AREA_PX, where=cells_path
    )
    if AREA_UM2 in cells.columns:
        spots["area"] = cell_numbers(cells, AREA_UM2, where=cells_path, missing=True)[rows[rows >= 0]]
    elif "area" in spots.columns:
        spots["area"] *= pixel.um**2
    left_out = {"background (cell_ID 0)": background, "not in the metadata": (rows < 0) & ~background}
    return RawSlide(
        counts=counts[rows >= 0],
        spot_ids=keys[rows >= 0],
        genes=gene_frame(names),
        xy=xy[rows[rows >= 0]],
        um_per_unit=pixel.um,
        spots=spots,
        control_patterns=CONTROL_PATTERNS,
        notes=notes,
        dropped={**dropped, **{name: _sum(counts, which) for name, which in left_out.items() if which.any()}},
    )


def _sum(counts: Any, which: NDArray[np.bool_]) -> dict[str, int]:
    return {"spots": int(which.sum()), "counts": int(counts[which].sum(dtype=np.int64))}


def _read_molecules(path: Path, *, fovs: Fovs | None, pixel: Pixel, bin_um: float | None) -> RawSlide:
    table = open_molecules(path)
    x, y = place = _molecule_place(table)
    pitch_um = bin_um or DEFAULT_BIN_UM
    fov = KEY[0]
    kinds: dict[str, Kind] = {fov: "float"}

    def on_slide(block: Block) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        corner = _fov_place(fovs, block[fov], um=pixel.um, where=path)
        return block[x] + corner[:, 0], block[y] + corner[:, 1]

    local = place == MOLECULE_LOCAL
    binned = bin_table(
        table,
        gene=table.need(TARGET),
        x=x,
        y=y,
        pitch=pitch_um / pixel.um,
        further=kinds if local else None,
        move=on_slide if local else None,
    )
    return bins_slide(
        binned.bins,
        genes=binned.genes,
        pitch=pitch_um / pixel.um,
        um_per_unit=pixel.um,
        where=path,
        notes=() if bin_um else (default_bin_note(pitch_um),),
        control_patterns=CONTROL_PATTERNS,
    )
