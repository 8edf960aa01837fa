"""What a file or folder is that no reader takes: an archive, an R object, a matrix without places; and what to do."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stpatch.errors import StpatchError
from stpatch.slides.formats.hdf5.files import attribute_text, hdf5_file, looks_hdf5
from stpatch.slides.formats.molecules.plain import find_molecules
from stpatch.slides.formats.molecules.table import open_molecules
from stpatch.slides.formats.names import listed
from stpatch.slides.formats.tenx.layout import unpack_command
from stpatch.slides.formats.tenx.mex import is_mex, mex_files
from stpatch.slides.formats.tenx.read import is_tenx_h5
from stpatch.slides.formats.text.lines import head_or_none, open_text

_HDF5 = b"\x89HDF\r\n\x1a\n"
_ARCHIVE_NAME = re.compile(
    r".*\.(tar|tgz|zip|7z|rar|bz2|xz|zst|tar\.(gz|bz2|xz|zst)|(h5|h5ad|h5seurat|gef|loom)\.gz)", re.I
)
_PLACES = (("x", "y"), ("x_location", "y_location"), ("global_x", "global_y"), ("x_global_px", "y_global_px"))


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What it is, in words for an error's first line, and a hint."""

    what: str
    hint: str


def explain(path: Path) -> Explanation | None:
    """Say what a file or folder is that no reader recognized; None where that is not known."""
    looks: tuple[Callable[[Path], Explanation | None], ...] = (
        (_packed, _r_object, _hdf5, _parquet, _molecules) if path.is_file() else (_folder,)
    )
    for look in looks:
        try:
            found = look(path)
        except (StpatchError, OSError, EOFError, zlib.error):
            continue  # damaged: what it would be is not known
        if found is not None:
            return found
    return None


def _packed(path: Path) -> Explanation | None:
    start, inner = _starts(path)
    hint = f"unpack it first, and give what comes out of it: {unpack_command(path.name)}"
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        what = "a zarr store packed as zip" if ".zarr" in path.name.lower() else "a zip archive"
        return Explanation(what=f"this is {what}, and archives are not read", hint=hint)
    if start[257:262] == b"ustar" or inner[257:262] == b"ustar":
        return Explanation(what="this is a tar archive, and archives are not read", hint=hint)
    if inner.startswith(_HDF5):
        return Explanation(what="this is an HDF5 file packed with gzip", hint=hint)
    for magic, name in (
        (b"7z\xbc\xaf", "7z"),
        (b"Rar!", "rar"),
        (b"BZh", "bzip2"),
        (b"\xfd7zXZ", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
    ):
        if start.startswith(magic):
            return Explanation(
                what=f"this is packed with {name}", hint="unpack it first, and give what comes out of it"
            )
    return None


def _starts(path: Path) -> tuple[bytes, bytes]:
    """Return the first bytes of a file, and those inside where it is gzipped."""
    with path.open("rb") as file:
        start = file.read(512)
    if not start.startswith(b"\x1f\x8b"):
        return start, b""
    with gzip.open(path) as unpacked:
        return start, unpacked.read(512)


def _r_object(path: Path) -> Explanation | None:
    start, inner = _starts(path)
    for text in (start, inner):
        if text.startswith((b"RDX", b"RDA", b"X\n\0\0", b"A\n")) or path.suffix.lower() in (
            ".rds",
            ".rdata",
            ".rda",
            ".qs",
        ):
            return Explanation(
                what="this is an R object (RDS or RData), which is not read",
                hint="write counts and coordinates from R: as h5ad, or as a counts table and a coordinates table "
                "for platform table",
            )
    return None


def _hdf5(path: Path) -> Explanation | None:
    if not looks_hdf5(path):
        return None
    if is_tenx_h5(path):
        return Explanation(
            what="this is a 10x matrix without positions",
            hint="give the folder with spatial/ and the matrix, put spatial/ beside the matrix, or name the positions "
            "in the samplesheet's column coordinates",
        )
    with hdf5_file(path) as file:
        keys, attributes = set(file), {name: attribute_text(file.attrs[name]) for name in file.attrs}
    as_h5ad = "write it as h5ad with raw counts and obsm['spatial']"
    if {"assays", "cell.names"} <= keys or "active.assay" in attributes:
        return Explanation(what="this is a Seurat file (h5Seurat), which is not read", hint=f"{as_h5ad}, from R")
    if "mod" in keys or attributes.get("encoding-type") == "MuData":
        return Explanation(
            what="this is MuData: several modalities in one file, which is not read",
            hint="write the modality of RNA as h5ad: mdata['rna'].write('rna.h5ad')",
        )
    if "barcode_idx" in keys or "molecule_idx" in keys or "umi" in keys:
        return Explanation(
            what="this is Cell Ranger's or Space Ranger's molecule_info.h5, which has no matrix",
            hint="give the outs folder, or filtered_feature_bc_matrix.h5",
        )
    if {"feature_slices", "masks"} & keys:
        return Explanation(
            what="this is Space Ranger's feature_slice.h5, which is not read",
            hint="give the folder with binned_outputs",
        )
    if "featuredata" in keys:
        return Explanation(
            what="this is MERSCOPE's file of cell boundaries", hint="give the folder with cell_by_gene.csv"
        )
    if {"assay001"} & keys or any(name.startswith("assay0") for name in keys):
        return Explanation(
            what="this is an HDF5 store of a SummarizedExperiment, whose tables are in R's file beside it",
            hint=f"{as_h5ad}, from R",
        )
    return Explanation(
        what="this is an HDF5 file, but of no layout that is known",
        hint=f"it holds {listed(sorted(keys)) or 'nothing'}; {as_h5ad}",
    )


def _parquet(path: Path) -> Explanation | None:
    with path.open("rb") as file:
        if file.read(4) != b"PAR1":
            return None
    columns = open_molecules(path).columns
    return Explanation(
        what="this is a parquet table of no platform's columns",
        hint=f"it has {listed(columns)}; a table of molecules (x, y, gene) is read as platform table",
    )


def _molecules(path: Path) -> Explanation | None:
    found = find_molecules(path)
    if found is not None:
        return Explanation(
            what="this is a table of molecules, one per row",
            hint="set platform: table (and ingest.bin_um, um_per_unit): columns "
            f"{found.x}, {found.y}, {found.gene} are read",
        )
    head = head_or_none(path)
    if head is not None and any({x, y} <= {name.lower() for name in head.names} for x, y in _PLACES):
        return Explanation(
            what="this is a table of places without counts of genes, or of no platform's columns",
            hint="give the counts table as path with platform table, and this one in column coordinates",
        )
    return None


def _folder(path: Path) -> Explanation | None:
    if is_mex(path):
        return _mex(path)
    items = sorted(path.iterdir())
    packed = [item.name for item in items if _ARCHIVE_NAME.fullmatch(item.name)]
    if packed:
        return Explanation(
            what="the folder holds archives, which are not read",
            hint=f"unpack them first: {unpack_command(packed[0])}"
            + (f" ({len(packed)} in all)" if len(packed) > 1 else ""),
        )
    known = [found for item in items[:200] if item.is_file() and (found := _about_file(item)) is not None]
    return known[0] if len(known) == 1 else None


def _about_file(path: Path) -> Explanation | None:
    """Say what a file of a folder is, where it is one of those that hold a whole slide."""
    if path.suffix.lower() not in (".h5", ".h5seurat", ".h5mu", ".rds", ".rdata", ".rda", ".qs"):
        return None
    found = explain(path)
    return None if found is None else Explanation(what=f"{path.name}: {found.what}", hint=found.hint)


def _mex(path: Path) -> Explanation:
    with open_text(mex_files(path).barcodes) as file:
        words = file.readline().split("\t")
    if len(words) >= 5 and all(re.fullmatch(r"\d+", word.strip()) for word in words[1:5]):
        return Explanation(
            what="this is a Seq-Scope or NovaScope matrix (SGE), which is not read: places are in barcodes.tsv, and "
            "every entry has several counts",
            hint="write a table of molecules (x, y, gene, count) from it, and give that as platform table",
        )
    return Explanation(
        what="this is a 10x matrix without positions",
        hint="put spatial/ with tissue_positions.csv beside the matrix, or name the positions in column coordinates",
    )
