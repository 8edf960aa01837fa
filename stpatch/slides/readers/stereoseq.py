"""Stereo-seq: GEM text or GEF, summed to square bins.

DNBs, the chip's spots, are 0.5 um apart unless the file says otherwise. Bins start at the file's smallest x and y,
which takes a pass of its own over the coordinates; the corner is recorded.
"""

from __future__ import annotations

import re
from pathlib import Path

from stpatch.config import IngestSection
from stpatch.errors import InputError, InputMissingError, StpatchError
from stpatch.slides.formats.hdf5.gef import Gef, GefReader, open_gef
from stpatch.slides.formats.molecules.binner import MoleculeBinner
from stpatch.slides.formats.molecules.gem import Gem, GemReader, open_gem
from stpatch.slides.formats.molecules.slide import bins_slide, default_bin_note
from stpatch.slides.readers.registry import register
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource

DNB_UM = 0.5
DEFAULT_BIN_UM = 25.0
"""Bin 50, as the vendor's own pictures have it, where ``ingest.bin_um`` is not set."""
CELLS = re.compile(r".*\.cellbin\.(gef|gem(\.gz)?)", re.IGNORECASE)
TISSUE = re.compile(r".*\.tissue\.(gef|gem(\.gz)?)", re.IGNORECASE)
NAMED = re.compile(r".*\.(gem|tsv|txt|gef)(\.gz)?", re.IGNORECASE)
SURE = re.compile(r".*\.(gem(\.gz)?|gef)", re.IGNORECASE)
"""Names that promise Stereo-seq: what is wrong inside is an error, not another platform."""


@register
class StereoSeq:
    """Reader of a GEM or GEF file, or a folder with one of them."""

    platform = "stereoseq"

    def probe(self, source: SlideSource, options: IngestSection) -> Probe | None:
        """Recognize a GEM by its columns, a GEF by ``geneExp``."""
        found, _ = find(source.path)
        if found is None:
            return None
        dnb_um = _dnb_um(found, options)
        if isinstance(found, Gem):
            columns = (found.gene, "x", "y", found.count)
            return Probe(
                platform=self.platform,
                reason=f"{found.table.path.name} has the columns {', '.join(columns)}",
                files=(found.table.path,),
                version=found.version,
                unit="DNB",
                pitch_um=options.bin_um or DEFAULT_BIN_UM,
                um_per_unit=dnb_um,
            )
        return Probe(
            platform=self.platform,
            reason=f"{found.path.name} has geneExp/bin{found.levels[0]}",
            files=(found.path,),
            version=found.version,
            n_genes=found.n_genes,
            unit="DNB",
            pitch_um=options.bin_um or DEFAULT_BIN_UM,
            um_per_unit=dnb_um,
        )

    def read(self, source: SlideSource, options: IngestSection, probe: Probe) -> RawSlide:
        """Stream the molecules into bins of ``ingest.bin_um``."""
        found, choice = find(source.path)
        if found is None:
            raise InputError(
                "this is not a Stereo-seq file",
                where=source.path,
                hint="give a .gem, .gem.gz or .gef file, or another platform",
            )
        (path,) = probe.files
        dnb_um = _dnb_um(found, options)
        bin_um = options.bin_um or DEFAULT_BIN_UM
        side = dnbs_per_bin(bin_um, dnb_um=dnb_um, where=path)
        reader = GemReader(found) if isinstance(found, Gem) else GefReader(found, level=_level(found, side))
        finest = found.bin_size if isinstance(found, Gem) else _level(found, side)
        if side % finest:
            raise InputError(
                "the file's own bins do not divide the bin that is asked for",
                where=path,
                found=f"bins of {finest} DNBs",
                expected=f"a divisor of {side} DNBs ({bin_um:g} um)",
                hint=f"set ingest.bin_um to a multiple of {finest * dnb_um:g}, or give the bin 1 file",
            )
        binner = MoleculeBinner(pitch=side, origin=reader.minimum(), where=path)
        for block in reader.blocks():
            binner.add(*block)
        genes = reader.genes()
        notes = [*choice, f"bin origin is the file's smallest coordinate; {dnb_um:g} um between DNBs"]
        if options.bin_um is None:
            notes.append(default_bin_note(bin_um))
        return bins_slide(
            binner.finish(n_genes=len(genes)),
            genes=genes,
            pitch=float(side),
            um_per_unit=dnb_um,
            where=path,
            version=probe.version,
            notes=tuple(notes),
        )


def find(path: Path) -> tuple[Gem | Gef | None, tuple[str, ...]]:
    """Open the Stereo-seq file that `path` is or holds, None where there is none; and how it was chosen of several.

    Files of cells (``*.cellbin.gef``) are left out beside others; of ``*.tissue.gef`` and what covers the whole chip
    the tissue's is taken.

    Raises
    ------
    InputError
        There are several, or the one that there is is damaged.
    """
    if path.is_file():
        return _open(path), ()
    names = sorted(item for item in path.iterdir() if item.is_file() and NAMED.fullmatch(item.name))
    cells = [item for item in names if CELLS.fullmatch(item.name)]
    others = [item for item in names if item not in cells]
    found = [opened for item in (others or cells) if (opened := _open(item)) is not None]
    tissue = [one for one in found if TISSUE.fullmatch(_path(one).name)]
    if len(found) > 1 and len(tissue) == 1:
        left = [item.name for item in names if item != _path(tissue[0])]
        return tissue[0], (f"read {_path(tissue[0]).name}; left {', '.join(left)} (the tissue goes before the chip)",)
    if len(found) > 1:
        raise InputError(
            "the folder holds several Stereo-seq files",
            where=path,
            found=", ".join(_path(one).name for one in found),
            hint="name one of them in the samplesheet",
        )
    return (found[0] if found else None), ()


def _path(opened: Gem | Gef) -> Path:
    return opened.path if isinstance(opened, Gef) else opened.table.path


def _open(path: Path) -> Gem | Gef | None:
    try:
        return open_gef(path) or open_gem(path)
    except StpatchError as error:
        if SURE.fullmatch(path.name) or _has_gem_columns(error):
            raise
        return None


def _has_gem_columns(error: StpatchError) -> bool:
    return not isinstance(error, InputMissingError) and "geneID" in (error.found or "")


def _dnb_um(found: Gem | Gef, options: IngestSection) -> float:
    if options.um_per_unit is not None:
        return options.um_per_unit
    if isinstance(found, Gef) and found.resolution_nm is not None:
        return found.resolution_nm / 1000
    return DNB_UM


def dnbs_per_bin(bin_um: float, *, dnb_um: float, where: object) -> int:
    """Return a bin's side in DNBs; a bin that is not a whole number of them is an error."""
    side = round(bin_um / dnb_um)
    if side < 1 or abs(side * dnb_um - bin_um) > 1e-6 * bin_um:
        raise InputError(
            "the bin is not a whole number of DNBs",
            where=where,
            found=f"ingest.bin_um = {bin_um:g}",
            expected=f"a multiple of {dnb_um:g} um",
            hint=f"set ingest.bin_um to {max(1, side) * dnb_um:g}",
        )
    return side


def _level(gef: Gef, side: int) -> int:
    """Return the bin to read: 1 where there is one, else the coarsest that divides the bin that is asked for."""
    if gef.levels[0] == 1:
        return 1
    return max((level for level in gef.levels if side % level == 0), default=gef.levels[0])
