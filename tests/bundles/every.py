"""A small valid slide of every platform, in several layouts: what tests and the fuzzer damage."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from bundles.cosmx import write_cosmx
from bundles.h5ad import make_anndata, write_anndata, write_h5ad
from bundles.merscope import write_merscope
from bundles.paper_h5 import write_paper_h5
from bundles.slideseq import write_slideseq
from bundles.spatialdata import write_spatialdata
from bundles.st import write_st
from bundles.stereoseq import write_gef, write_gem
from bundles.table import write_loom, write_table
from bundles.visium import write_visium
from bundles.visium_hd import write_square
from bundles.xenium import write_xenium

from stpatch.config import IngestSection
from stpatch.slides.canonical import canonical_slide
from stpatch.slides.readers.registry import read_source
from stpatch.slides.slide import RawSlide, Slide
from stpatch.slides.source import SlideSource

Place = tuple[str, ...]
"""Path, and that of the coordinates table where there is one, inside a bundle's folder."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """One valid slide.

    Attributes
    ----------
    write
        Writes it into a folder; returns its path, and that of a coordinates table where the source names one.
    platform
        Whose reader must recognize it; ``table`` must be asked for by name, the others are recognized.
    options
        Keys of ``ingest``.
    by_order
        Files whose rows are joined to others by their order: a shuffle changes what they say.
    """

    name: str
    platform: str
    write: Callable[[Path], Path | tuple[Path, Path]]
    options: dict[str, Any] = field(default_factory=dict)
    by_order: tuple[str, ...] = ()


def write_bundle(bundle: Bundle, folder: Path) -> Place:
    """Write a bundle and return what a samplesheet would name."""
    written = bundle.write(folder)
    paths = written if isinstance(written, tuple) else (written,)
    return tuple(str(path.relative_to(folder)) for path in paths)


def read_bundle(bundle: Bundle, folder: Path, place: Place, **options: Any) -> tuple[RawSlide, Slide]:
    """Probe, read and canonicalize as the stage ingest does; `options` are further arguments of `canonical_slide`."""
    source = SlideSource(
        slide_id="slide",
        path=folder / place[0],
        platform="table" if place[1:] else "auto",
        coordinates=folder / place[1] if place[1:] else None,
    )
    section = IngestSection(**bundle.options)
    probe, raw = read_source(source, section)
    labels = pd.DataFrame(index=pd.RangeIndex(len(raw.spot_ids)))
    return raw, canonical_slide(raw, source=source, probe=probe, section=section, labels=labels, **options)


_MEX_NAMES = ("barcodes.tsv", "features.tsv", "genes.tsv")


def all_bundles() -> tuple[Bundle, ...]:
    """Return the slides; their order is part of what a seed means."""
    return (
        Bundle(name="visium v1 h5", platform="visium", write=lambda p: write_visium(p, layout="v1")),
        Bundle(name="visium v2 mex", platform="visium", write=_visium_mex, by_order=_MEX_NAMES),
        Bundle(name="visium parquet", platform="visium", write=lambda p: write_visium(p, layout="parquet", kind="raw")),
        Bundle(name="visium_hd h5", platform="visium_hd", write=lambda p: write_square(p / "square_002um")),
        Bundle(
            name="visium_hd mex coarse",
            platform="visium_hd",
            write=lambda p: write_square(p / "square_002um", matrix="mex", positions="v2"),
            options={"hd_bin_um": 2, "bin_um": 4.0},
            by_order=_MEX_NAMES,
        ),
        Bundle(name="xenium h5 parquet", platform="xenium", write=write_xenium),
        Bundle(
            name="xenium mex csv",
            platform="xenium",
            write=lambda p: write_xenium(p, matrix="mex", cells="cells.csv.gz", ids="int"),
            by_order=_MEX_NAMES,
        ),
        Bundle(
            name="xenium molecules parquet",
            platform="xenium",
            write=lambda p: write_xenium(p, matrix=None, cells=None, transcripts="transcripts.parquet"),
            options={"bin_um": 10.0},
        ),
        Bundle(
            name="xenium molecules csv",
            platform="xenium",
            write=lambda p: write_xenium(p, matrix=None, cells=None, transcripts="transcripts.csv.gz"),
            options={"bin_um": 10.0},
        ),
        Bundle(name="merscope cells", platform="merscope", write=write_merscope),
        Bundle(
            name="merscope molecules",
            platform="merscope",
            write=lambda p: write_merscope(p, cells=False, transcripts=True),
            options={"bin_um": 5.0},
        ),
        Bundle(name="cosmx cells", platform="cosmx", write=write_cosmx),
        Bundle(name="cosmx local gz", platform="cosmx", write=lambda p: write_cosmx(p, place="local", end=".csv.gz")),
        Bundle(
            name="cosmx molecules",
            platform="cosmx",
            write=lambda p: write_cosmx(p, place=None, molecules=".csv"),
            options={"bin_um": 20.0},
        ),
        Bundle(name="stereoseq gem", platform="stereoseq", write=lambda p: write_gem(p / "a.gem")),
        Bundle(name="stereoseq gem gz", platform="stereoseq", write=lambda p: write_gem(p / "a.gem.gz", names=True)),
        Bundle(name="stereoseq gef", platform="stereoseq", write=lambda p: write_gef(p / "a.gef")),
        Bundle(name="slideseq", platform="slideseq", write=write_slideseq),
        Bundle(
            name="slideseq puck gz", platform="slideseq", write=lambda p: write_slideseq(p, layout="puck", suffix=".gz")
        ),
        Bundle(name="st her2st", platform="st", write=write_st),
        Bundle(name="st flat", platform="st", write=lambda p: write_st(p, layout="flat")),
        Bundle(name="h5ad", platform="h5ad", write=lambda p: write_h5ad(_made(p) / "a.h5ad")),
        Bundle(name="h5ad dense", platform="h5ad", write=lambda p: write_h5ad(_made(p) / "a.h5ad", storage="dense")),
        Bundle(
            name="h5ad csc layer",
            platform="h5ad",
            write=lambda p: write_h5ad(_made(p) / "a.h5ad", storage="csc", matrix="layers", visium=False),
        ),
        Bundle(name="h5ad zarr 3", platform="h5ad", write=lambda p: _zarr(p, 3)),
        Bundle(name="h5ad zarr 2", platform="h5ad", write=lambda p: _zarr(p, 2)),
        Bundle(name="spatialdata", platform="spatialdata", write=lambda p: write_spatialdata(p / "a.zarr")),
        Bundle(
            name="spatialdata 2",
            platform="spatialdata",
            write=lambda p: write_spatialdata(p / "a.zarr", zarr_format=2, visium=True),
        ),
        Bundle(name="paper_h5", platform="paper_h5", write=write_paper_h5),
        Bundle(name="paper_h5 names", platform="paper_h5", write=lambda p: write_paper_h5(p, ids="name", dtype=int)),
        Bundle(name="table columns", platform="table", write=lambda p: write_table(p)),
        Bundle(
            name="table rows blank",
            platform="table",
            write=lambda p: write_table(p, genes_in="rows", delimiter=" ", short=True, ids=False, header=False),
            by_order=("counts.txt", "places.txt"),
        ),
        Bundle(name="loom", platform="table", write=write_loom),
        Bundle(name="visium flat", platform="visium", write=_visium_flat),
        Bundle(name="visium portal", platform="visium", write=_visium_portal, by_order=_MEX_NAMES),
        Bundle(name="visium loose mex", platform="visium", write=_visium_loose, by_order=_MEX_NAMES),
        Bundle(name="h5ad named layer", platform="h5ad", write=_named_layer),
        Bundle(name="merscope vpt", platform="merscope", write=_merscope_vpt),
        Bundle(name="cosmx below", platform="cosmx", write=lambda p: write_cosmx(_made(p / "flatFiles")).parent),
    )


def _visium_flat(folder: Path) -> Path:
    outs = write_visium(folder)
    for item in [*(outs / "spatial").iterdir(), outs / "filtered_feature_bc_matrix.h5"]:
        item.rename(outs / f"GSM1_{item.name}")
    (outs / "spatial").rmdir()
    return outs


def _visium_portal(folder: Path) -> Path:
    outs = write_visium(folder, matrix="mex")
    (outs / "filtered_feature_bc_matrix").rename(outs / "S1_filtered")
    (outs / "spatial").rename(outs / "S1_spatial")
    return outs


def _visium_loose(folder: Path) -> Path:
    outs = write_visium(folder, matrix="mex")
    path = outs / "filtered_feature_bc_matrix" / "matrix.mtx.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    lines[3:] = [line.replace(" ", "  ") for line in lines[3:]]
    path.write_bytes(gzip.compress("\n".join([*lines, ""]).encode(), mtime=0))
    return outs


def _named_layer(folder: Path) -> Path:
    slide = make_anndata(matrix="layers")
    slide.layers["raw_counts"] = slide.layers.pop("counts")
    return write_anndata(_made(folder) / "a.h5ad", slide)


def _merscope_vpt(folder: Path) -> Path:
    write_merscope(folder)
    for item in list(folder.iterdir()):
        item.rename(item.with_name(f"cellpose_{item.name.replace('cell_', 'entity_')}"))
    return folder


def _visium_mex(folder: Path) -> Path:
    return write_visium(folder, matrix="mex")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _zarr(folder: Path, zarr_format: int) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return write_anndata(_made(folder) / "a.zarr", make_anndata(), zarr_format=zarr_format)
