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
from stpatch.slides.formats.tenx.positions import find_positions, first_barcode
from stpatch.slides.formats.tenx.read import probe_tenx, read_tenx, tenx_files
from stpatch.slides.geometry import compare, disagreement
from stpatch.slides.readers.registry import register
from stpatch.slides.readers.visium import HD_BARCODE, Layout, layout_in
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource

FOLDER = re.compile(r"square_(\d{3})um")


@register
class VisiumHd:
    """Reader of one bin size of a Visium HD folder."""

    platform = "visium_hd"

    def probe(self, source: SlideSource, options: IngestSection) -> Probe | None:
        """Recognize ``square_*um`` folders by their bins' barcodes."""
        layout = find_bins(source.path, bin_um=options.hd_bin_um)
        if layout is None:
            return None
        positions = find_positions(layout.spatial)
        if positions is None:
            raise InputMissingError(
                "the bins have no positions", where=layout.spatial, expected="tissue_positions.parquet"
            )
        match = HD_BARCODE.fullmatch(first_barcode(positions))
        if match is None:
            return None
        size_um = float(match["um"])
        n_bins, n_genes, version = probe_tenx(layout.matrix)
        factor = bin_factor(size_um, options.bin_um, where=source.path)
        scale_file = layout.spatial / "scalefactors_json.json"
        scale = read_scale(scale_file, size_um=size_um)
        bins = some_positions(positions, size_um=size_um)
        found = compare(bins.array, bins.xy, hexagonal=False)
        if found.verdict == "disagree" and options.places != "array":
            raise disagreement(found, bins.array, bins.xy, where=positions)
        notes: tuple[str, ...] = layout.notes
        step = row_step(bins.array, bins.xy)
        if scale is None and step is not None:
            lack = f"microns_per_pixel in {scale_file.name}" if scale_file.is_file() else scale_file.name
            notes = (*notes, f"no {lack}: um per pixel is from the distance of the bins")
            scale = size_um / step
        files = (*tenx_files(layout.matrix), positions, *([scale_file] if scale_file.is_file() else []))
        return Probe(
            platform=self.platform,
            reason=f"HD barcodes in {layout.spatial.name}/{positions.name}, bins of {size_um:g} um",
            files=files,
            version=version,
            n_spots=n_bins if factor == 1 else None,
            n_genes=n_genes,
            unit="px",
            pitch_um=size_um * factor,
            um_per_unit=scale,
            geometry="square",
            notes=notes,
        )

    def read(self, source: SlideSource, options: IngestSection, probe: Probe) -> RawSlide:
        """Read the bins, summed to ``bin_um`` where it is coarser."""
        layout = find_bins(source.path, bin_um=options.hd_bin_um)
        if layout is None or probe.pitch_um is None:
            raise InputError(
                "this is no Visium HD folder",
                where=source.path,
                hint="give the outs folder or a square_* folder, or another platform",
            )
        positions = next(file for file in probe.files if file.parent == layout.spatial and "positions" in file.name)
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
            notes=probe.notes,
        )


def find_bins(path: Path, *, bin_um: int) -> Layout | None:
    """Return the layout of one bin size: of the ``square_*um`` folder itself, or of `bin_um` in an outs folder.

    Raises
    ------
    InputMissingError
        The outs folder has no bins of this size; those present are named.
    """
    if not path.is_dir():
        return None
    for folder in (path, path / "binned_outputs", path / "outs" / "binned_outputs"):
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
        return layout_in(folder / name)
    spatial = path / "spatial"
    positions = find_positions(spatial) if spatial.is_dir() else None
    if positions is None and not FOLDER.fullmatch(path.name):
        return None
    if positions is not None and not HD_BARCODE.fullmatch(first_barcode(positions)):
        return None
    return layout_in(path)


def bin_factor(size_um: float, bin_um: float | None, *, where: object) -> int:
    """Return how many bins make the side of a coarser one."""
    if bin_um is None:
        return 1
    factor = round(bin_um / size_um)
    if factor < 1 or abs(bin_um - factor * size_um) > 1e-9:
        raise InputError(
            "ingest.bin_um is no multiple of the bins' size",
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
        factors = json.loads(path.read_text(encoding="utf-8-sig"))
        scale = None if factors.get("microns_per_pixel") is None else float(factors["microns_per_pixel"])
        bin_size = float(factors.get("bin_size_um", size_um))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            "the scale factors cannot be read", where=path, found=error, expected="microns_per_pixel, bin_size_um"
        ) from error
    if scale is not None and not 0 < scale < np.inf:
        raise InputError("microns_per_pixel is no scale", where=path, found=scale, expected="a number above 0")
    if bin_size != size_um:
        raise InputError(
            "the scale factors are of another bin size", where=path, found=bin_size, expected=f"bin_size_um {size_um:g}"
        )
    return scale
