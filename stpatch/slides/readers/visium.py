"""Visium: a Space Ranger folder, with its matrix as HDF5 or MEX and its positions in any of their variants."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.config import IngestSection
from stpatch.errors import InputError
from stpatch.slides.formats.barcodes import join_barcodes
from stpatch.slides.formats.tenx.lattice import PITCH_UM, check_parity, scale_of
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
from stpatch.slides.formats.tenx.read import probe_tenx, read_tenx, tenx_files
from stpatch.slides.readers.registry import register
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource

HD_BARCODE = re.compile(r"s_(?P<um>\d{3})um_\d{5}_\d{5}(-\d+)?")


@register
class Visium:
    """Reader of Space Ranger's output folder."""

    platform = "visium"

    def probe(self, source: SlideSource, options: IngestSection) -> Probe | None:  # noqa: ARG002 - the readers' protocol
        """Recognize a 10x matrix with ``spatial/tissue_positions*`` beside it."""
        layout = find_layout(source.path, coordinates=source.coordinates, matrix=source.matrix)
        if layout is None or layout.positions is None:
            return None
        positions = layout.positions
        if HD_BARCODE.fullmatch(first_barcode(positions)):
            return None
        n_spots, n_genes, version = probe_tenx(layout.matrix)
        return Probe(
            platform=self.platform,
            reason=f"{_shown(positions, layout.matrix)} beside {layout.matrix.name}",
            files=(*tenx_files(layout.matrix), positions),
            version=version,
            n_spots=n_spots,
            n_genes=n_genes,
            unit="px",
            pitch_um=PITCH_UM,
            spot_columns=("in_tissue",),
        )

    def read(self, source: SlideSource, options: IngestSection, probe: Probe) -> RawSlide:  # noqa: ARG002
        """Read matrix and positions, joined by barcode."""
        layout = find_layout(source.path, coordinates=source.coordinates, matrix=source.matrix)
        if layout is None:
            raise InputError(
                "this is not a Space Ranger folder", where=source.path, hint="give the outs folder, or another platform"
            )
        matrix = read_tenx(layout.matrix)
        *_, file = probe.files
        positions = read_positions(file)
        check_parity(positions.array, positions.barcodes, where=file)
        rows, join_notes = join_positions(matrix.barcodes, positions, matrix=layout.matrix, where=file)
        scale = scale_of(positions.array, positions.xy, where=file)
        notes, empty = _empty_spots(positions, rows)
        return RawSlide(
            counts=matrix.counts,
            spot_ids=matrix.barcodes,
            genes=matrix.genes,
            xy=positions.xy[rows],
            array=positions.array[rows],
            geometry="hex",
            um_per_unit=scale.um_per_unit,
            pitch=None if scale.um_per_unit is None else PITCH_UM / scale.um_per_unit,
            spots=pd.DataFrame({"in_tissue": positions.in_tissue[rows]}),
            version=matrix.version,
            notes=(*layout.notes, *matrix.notes, *join_notes, *scale.notes, *notes),
            dropped={"no counts": {"spots": empty, "counts": 0}} if empty else {},
        )


def _shown(positions: Path, matrix: Path) -> str:
    return positions.name if positions.parent == matrix.parent else f"{positions.parent.name}/{positions.name}"


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
