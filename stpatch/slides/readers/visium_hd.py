"""Visium HD: square bins whose barcodes are their array indices (``s_008um_00012_00034-1``)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd

from stpatch.config import IngestSection
from stpatch.errors import InputError, InputMissingError
from stpatch.slides.formats.tenx.hd_bins import bins_of, read_coarse, some_positions
from stpatch.slides.formats.tenx.lattice import row_step
from stpatch.slides.formats.tenx.layout import Layout, layout_in, layout_of_file
from stpatch.slides.formats.tenx.positions import first_barcode
from stpatch.slides.formats.tenx.read import probe_tenx, read_tenx, tenx_files
from stpatch.slides.formats.text.lines import open_text
from stpatch.slides.geometry import compare, disagreement
from stpatch.slides.readers.registry import register
from stpatch.slides.readers.visium import HD_BARCODE
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource

FOLDER = re.compile(r"square_(\d{3})um")


@register
class VisiumHd:
    """Reader of one bin size of a Visium HD folder."""

    platform = "visium_hd"

    def probe(self, source: SlideSource, options: IngestSection) -> Probe | None:
        """Recognize ``square_*um`` folders by their bins' barcodes."""
        layout = find_bins(source.path, bin_um=options.hd_bin_um, coordinates=source.coordinates)
        if layout is None:
            return None
        positions = layout.positions
        if positions is None:
            raise InputMissingError(
                "the bins have no positions", where=layout.matrix.parent, expected="spatial/tissue_positions.parquet"
            )
        match = HD_BARCODE.fullmatch(first_barcode(positions))
        if match is None:
            return None
        size_um = float(match["um"])
        n_bins, n_genes, version = probe_tenx(layout.matrix)
        factor = bin_factor(size_um, options.bin_um, where=source.path)
        scale = None if layout.scale is None else read_scale(layout.scale, size_um=size_um)
        bins = some_positions(positions, size_um=size_um)
        found = compare(bins.array, bins.xy, hexagonal=False)
        if found.verdict == "disagree" and options.places != "array":
            raise disagreement(found, bins.array, bins.xy, where=positions)
        notes: tuple[str, ...] = layout.notes
        step = row_step(bins.array, bins.xy)
        if scale is None and step is not None:
            lack = "scalefactors_json.json" if layout.scale is None else f"microns_per_pixel in {layout.scale.name}"
            notes = (*notes, f"no {lack}: um per pixel is from the distance of the bins")
            scale = size_um / step
        files = (*tenx_files(layout.matrix), positions, *([] if layout.scale is None else [layout.scale]))
        return Probe(
            platform=self.platform,
            reason=f"HD barcodes in {positions.parent.name}/{positions.name}, bins of {size_um:g} um",
            files=files,
            version=version,
            n_spots=n_bins if factor == 1 else None,
            n_genes=n_genes,
            unit="px",
            pitch_um=size_um * factor,
            spot_columns=("in_tissue",),
            um_per_unit=scale,
            geometry="square",
            notes=notes,
        )

    def read(self, source: SlideSource, options: IngestSection, probe: Probe) -> RawSlide:
        """Read the bins, summed to ``bin_um`` where it is coarser."""
        layout = find_bins(source.path, bin_um=options.hd_bin_um, coordinates=source.coordinates)
        if layout is None or layout.positions is None or probe.pitch_um is None:
            raise InputError(
                "this is not a Visium HD folder",
                where=source.path,
                hint="give the outs folder or a square_* folder, or another platform",
            )
        positions = layout.positions
        match = HD_BARCODE.fullmatch(first_barcode(positions))
        size_um = float(match["um"]) if match else probe.pitch_um
        factor = bin_factor(size_um, options.bin_um, where=source.path)
        if factor == 1:
            matrix = read_tenx(layout.matrix)
            bins = bins_of(matrix.barcodes, positions, layout.matrix, size_um=size_um)
        else:
            matrix, bins = read_coarse(layout.matrix, positions, factor=factor, size_um=size_um)
        um_per_unit = probe.um_per_unit
        step = row_step(bins.array, bins.xy)
        return RawSlide(
            counts=matrix.counts,
            spot_ids=matrix.barcodes,
            genes=matrix.genes,
            xy=bins.xy,
            array=bins.array,
            geometry="square",
            um_per_unit=um_per_unit,
            pitch=step if um_per_unit is None else size_um * factor / um_per_unit,
            spots=pd.DataFrame({"in_tissue": bins.in_tissue}),
            version=matrix.version,
            notes=(*matrix.notes, *probe.notes),
        )


def find_bins(path: Path, *, bin_um: int, coordinates: Path | None = None) -> Layout | None:
    """Return the layout of one bin size: that of ``square_*um`` or its matrix, or `bin_um` in a folder of several.

    Raises
    ------
    InputMissingError
        The outs folder has no bins of this size; those present are named.
    InputError
        There are segmented cells alone.
    """
    if path.is_file():
        layout = layout_of_file(path, coordinates=coordinates)
        return layout if layout is not None and _is_hd(layout) else None
    if not path.is_dir():
        return None
    for folder in _bin_folders(path):
        present = (
            sorted(item.name for item in folder.iterdir() if FOLDER.fullmatch(item.name)) if folder.is_dir() else []
        )
        if not present:
            continue
        name = f"square_{bin_um:03d}um"
        if name not in present:
            raise InputMissingError(
                f"the Visium HD folder has no bins of {bin_um} um",
                where=folder,
                found=", ".join(present),
                hint="set ingest.hd_bin_um to one of these, or name the square_*um folder itself",
            )
        return layout_in(folder / name, coordinates=coordinates)
    _refuse_cells(path)
    if FOLDER.fullmatch(path.name):
        return layout_in(path, coordinates=coordinates)
    try:
        layout = layout_in(path, coordinates=coordinates)
    except InputError:  # the reader of Visium says what is wrong
        return None
    return layout if layout is not None and _is_hd(layout) else None


def _is_hd(layout: Layout) -> bool:
    return layout.positions is not None and HD_BARCODE.fullmatch(first_barcode(layout.positions)) is not None


def _bin_folders(path: Path) -> list[Path]:
    """Return the folders that may hold ``square_*um``: `path`, and ``binned_outputs`` in it under any prefix."""
    found = [path]
    for folder in (path, path / "outs"):
        if folder.is_dir():
            found += sorted(item for item in folder.iterdir() if item.is_dir() and item.name.endswith("binned_outputs"))
    return found


def _refuse_cells(path: Path) -> None:
    """Raise where a folder holds the segmented cells of Space Ranger 4 and no bins."""
    for folder in (path, path / "outs"):
        cells = sorted(folder.glob("*segmented_outputs")) if folder.is_dir() else []
        matrix = path / "filtered_feature_cell_matrix.h5"
        if cells or matrix.is_file():
            raise InputError(
                "the segmented outputs of Space Ranger 4 (cells) are not read",
                where=path,
                found=cells[0].name if cells else matrix.name,
                expected="binned_outputs with square_*um folders",
                hint="give the folder with binned_outputs, or write the cells as h5ad with obsm['spatial']",
            )


def bin_factor(size_um: float, bin_um: float | None, *, where: object) -> int:
    """Return how many bins make the side of a coarser one."""
    if bin_um is None:
        return 1
    factor = round(bin_um / size_um)
    if factor < 1 or abs(bin_um - factor * size_um) > 1e-9:
        raise InputError(
            "ingest.bin_um is not a multiple of the bins' size",
            where=where,
            found=f"bin_um {bin_um:g} um, bins of {size_um:g} um",
            expected=f"a multiple of {size_um:g}",
            hint="set ingest.bin_um, or ingest.hd_bin_um to a finer bin",
        )
    return factor


def read_scale(path: Path, *, size_um: float) -> float | None:
    """Return ``microns_per_pixel``; None without the file or the key. The file's bin size must be the barcodes'."""
    if not path.is_file():
        return None
    try:
        with open_text(path) as file:
            factors = json.load(file)
        scale = None if factors.get("microns_per_pixel") is None else float(factors["microns_per_pixel"])
        bin_size = float(factors.get("bin_size_um", size_um))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            "the scale factors cannot be read", where=path, found=error, expected="microns_per_pixel, bin_size_um"
        ) from error
    if scale is not None and not 0 < scale < np.inf:
        raise InputError("microns_per_pixel is not a scale", where=path, found=scale, expected="a number above 0")
    if bin_size != size_um:
        raise InputError(
            "the scale factors are of another bin size", where=path, found=bin_size, expected=f"bin_size_um {size_um:g}"
        )
    return scale
