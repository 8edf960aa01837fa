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
from stpatch.slides.formats.tenx.lattice import PITCH_UM, check_parity, scale_of
from stpatch.slides.formats.tenx.mex import is_mex
from stpatch.slides.formats.tenx.positions import Positions, find_positions, first_barcode, read_positions
from stpatch.slides.formats.tenx.read import probe_tenx, read_tenx, tenx_files
from stpatch.slides.readers.registry import register
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource

MATRIX = re.compile(r"(?:.+_)?(?P<kind>filtered|raw)_feature_bc_matrix(?P<h5>\.h5)?")
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

    def probe(self, source: SlideSource, options: IngestSection) -> Probe | None:  # noqa: ARG002 - the readers' protocol
        """Recognize a 10x matrix with ``spatial/tissue_positions*`` beside it."""
        layout = find_layout(source.path)
        if layout is None:
            return None
        positions = find_positions(layout.spatial)
        if positions is None:
            raise InputMissingError(
                "the Space Ranger folder has no positions",
                where=layout.spatial,
                expected="spatial/tissue_positions.csv, tissue_positions_list.csv or tissue_positions.parquet",
            )
        if HD_BARCODE.fullmatch(first_barcode(positions)):
            return None
        n_spots, n_genes, version = probe_tenx(layout.matrix)
        return Probe(
            platform=self.platform,
            reason=f"spatial/{positions.name} beside {layout.matrix.name}",
            files=(*tenx_files(layout.matrix), positions),
            version=version,
            n_spots=n_spots,
            n_genes=n_genes,
            unit="px",
            pitch_um=PITCH_UM,
        )

    def read(self, source: SlideSource, options: IngestSection, probe: Probe) -> RawSlide:  # noqa: ARG002
        """Read matrix and positions, joined by barcode."""
        layout = find_layout(source.path)
        if layout is None:
            raise InputError(
                "this is no Space Ranger folder", where=source.path, hint="give the outs folder, or another platform"
            )
        matrix = read_tenx(layout.matrix)
        *_, file = probe.files
        positions = read_positions(file)
        check_parity(positions.array, positions.barcodes, where=file)
        rows = join_positions(matrix.barcodes, positions, matrix=layout.matrix, where=file)
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
            notes=(*layout.notes, *matrix.notes, *scale.notes, *notes),
            dropped={"no counts": {"spots": empty, "counts": 0}} if empty else {},
        )


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


def layout_in(folder: Path) -> Layout | None:
    """Return matrix and ``spatial`` of the folder that holds them, None where there is neither; see `find_layout`."""
    if not folder.is_dir():
        return None
    found: dict[tuple[str, bool], list[Path]] = {}
    for item in sorted(folder.iterdir()):
        match = MATRIX.fullmatch(item.name)
        if match and (item.is_file() if match["h5"] else item.is_dir() and is_mex(item)):
            found.setdefault((match["kind"], bool(match["h5"])), []).append(item)
    spatial = folder / "spatial"
    if not found:
        if spatial.is_dir() and find_positions(spatial):
            raise InputMissingError(
                "the folder has positions but no matrix",
                where=folder,
                expected="filtered_feature_bc_matrix.h5, raw_feature_bc_matrix.h5 or a folder of that name with "
                "matrix.mtx, features.tsv and barcodes.tsv",
            )
        return None
    if not spatial.is_dir():
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
