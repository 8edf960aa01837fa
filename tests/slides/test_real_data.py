"""Every folder of the real slides goes in; spots and totals equal an independent count by pandas or h5py."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from stpatch.config import IngestSection
from stpatch.errors import InputError
from stpatch.slides.canonical import canonical_slide
from stpatch.slides.labels import attach_labels
from stpatch.slides.readers.registry import read_source
from stpatch.slides.source import SlideSource

Counted = tuple[int | None, int]
"""Spots (None where the reader makes bins) and the total of the counts, as the files hold them."""


@dataclass(frozen=True, kw_only=True)
class Real:
    """One real slide, as a samplesheet names it, and how to count it without stpatch."""

    path: str
    count: Callable[[Path], Counted]
    platform: str
    ask: str = "auto"
    coordinates: str | None = None
    labels: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    is_sample: bool = False


def columns_of(path: Path, *, separator: str = ",", starting: str = "") -> tuple[int, int]:
    """Count a table of genes in rows whose columns start with a text."""
    frame = pd.read_csv(path, sep=separator, index_col=0)
    frame = frame.loc[:, frame.columns.str.startswith(starting)]
    return frame.shape[1], int(frame.to_numpy().sum())


def rows_of(path: Path, *, separator: str = ",") -> tuple[int, int]:
    """Count a table of spots in rows."""
    frame = pd.read_csv(path, sep=separator, index_col=0)
    return len(frame), int(frame.to_numpy().sum())


def mtx_of(path: Path) -> tuple[int, int]:
    """Count a matrix market file by its entries."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt") as file:
        lines = [line.split() for line in file if not line.startswith("%")]
    return int(lines[0][1]), sum(int(line[2]) for line in lines[1:])


def tenx_of(path: Path) -> tuple[int, int]:
    """Count a 10x HDF5 file."""
    with h5py.File(path) as file:
        return len(file["matrix/barcodes"]), int(file["matrix/data"][:].sum())


def molecules_of(path: Path) -> tuple[None, int]:
    """Count the rows of a molecule table."""
    return None, len(pd.read_csv(path))


def gem_of(path: Path) -> tuple[None, int]:
    """Count a GEM."""
    return None, int(pd.read_csv(path, sep="\t", comment="#")["MIDCounts"].sum())


def loom_of(path: Path) -> tuple[int, int]:
    """Count a loom file."""
    with h5py.File(path) as file:
        return file["matrix"].shape[1], int(file["matrix"][:].sum())


def h5ad_of(path: Path) -> tuple[int, int]:
    """Count an AnnData file's CSR."""
    with h5py.File(path) as file:
        return int(file["X"].attrs["shape"][0]), int(file["X/data"][:].sum())


def cosmx_of(path: Path) -> tuple[int, int]:
    """Count CosMx cells; background is no spot."""
    frame = pd.read_csv(path)
    frame = frame[frame["cell_ID"] != 0]
    return len(frame), int(frame.drop(columns=["fov", "cell_ID"]).to_numpy().sum())


def in_folder(count: Callable[[Path], Counted], name: str) -> Callable[[Path], Counted]:
    """Count one file of the slide's folder."""
    return lambda folder: count(folder / name)


MOUSE_MINI = "visium_mouse_brain_mini/section1/outs"
PROSTATE = "visium_prostate_two_slides_txt"
OSMFISH = "osmfish_cortex"
DG = "visium_mouse_brain_DG_txt"

SLIDES = [
    *(
        Real(
            path=f"her2st/ST-cnts/{patient}{number}.tsv.gz",
            platform="st",
            count=lambda path: rows_of(path, separator="\t"),
        )
        for patient in "ABCD"
        for number in (1, 2, 3)
    ),
    *(
        Real(
            path=f"st_mouse_hippocampus/Hippo{number}.tsv.gz",
            platform="st",
            count=lambda path: rows_of(path, separator="\t"),
        )
        for number in (1, 2)
    ),
    Real(path="st_breast_layer1_csv", platform="st", count=in_folder(rows_of, "slice1.csv")),
    Real(
        path="st_breast_layer1_csv/slice1.csv",
        coordinates="st_breast_layer1_csv/slice1_coor.csv",
        ask="table",
        platform="table",
        count=rows_of,
    ),
    Real(
        path="visium_cytassist_mouse",
        platform="visium",
        count=in_folder(mtx_of, "filtered_feature_bc_matrix/matrix.mtx.gz"),
    ),
    Real(path="visium_human_mini_h5", platform="visium", count=in_folder(tenx_of, "filtered_feature_bc_matrix.h5")),
    Real(path=MOUSE_MINI, platform="visium", count=in_folder(tenx_of, "raw_feature_bc_matrix.h5")),
    Real(path=f"{MOUSE_MINI}/raw_feature_bc_matrix", platform="visium", count=in_folder(mtx_of, "matrix.mtx")),
    *(
        Real(
            path=f"{PROSTATE}/expression_matrix.txt.gz",
            coordinates=f"{PROSTATE}/spatial_locs.txt",
            labels=f"{PROSTATE}/cell_metadata.txt",
            metadata={"list_ID": name},
            ask="table",
            platform="table",
            options={"table": {"slide_column": "list_ID"}},
            count=lambda path, name=name: columns_of(path, separator=" ", starting=name),
        )
        for name in ("CP", "NP")
    ),
    Real(
        path=f"{DG}/visium_DG_expr.txt.gz",
        coordinates=f"{DG}/visium_DG_locs.txt",
        ask="table",
        platform="table",
        count=lambda path: columns_of(path, separator=" "),
    ),
    Real(
        path="visium_hd_mini",
        platform="visium_hd",
        options={"hd_bin_um": 2},
        count=in_folder(tenx_of, "binned_outputs/square_002um/filtered_feature_bc_matrix.h5"),
        is_sample=True,
    ),
    Real(
        path="visium_hd_mini/binned_outputs/square_002um",
        platform="visium_hd",
        count=in_folder(tenx_of, "filtered_feature_bc_matrix.h5"),
        is_sample=True,
    ),
    Real(path="stereoseq_mini", platform="stereoseq", count=in_folder(gem_of, "SS200000135TL_D1_bin1_small.gem.gz")),
    Real(path="slideseq_mini", platform="slideseq", count=in_folder(columns_of, "MappedDGEForR.csv")),
    *(
        Real(
            path=f"cosmx_lung9_transcripts/sample_{number}",
            platform="cosmx",
            count=in_folder(molecules_of, "tx_file.csv"),
        )
        for number in (1, 2)
    ),
    Real(
        path="cosmx_lung9_tiny",
        platform="cosmx",
        count=in_folder(cosmx_of, "lung_p9s1_exprMat_file.csv"),
        is_sample=True,
    ),
    Real(path="merscope_vpt_smallset", platform="merscope", count=in_folder(rows_of, "cell_by_gene.csv")),
    Real(path="merscope_ovarian_patch", platform="merscope", count=in_folder(molecules_of, "detected_transcripts.csv")),
    Real(
        path="merscope_ovarian_tiny",
        platform="merscope",
        count=in_folder(rows_of, "ovarian_p2s2_cell_by_gene.csv"),
        is_sample=True,
    ),
    Real(
        path="xenium_breast_mini",
        platform="xenium",
        count=in_folder(tenx_of, "cell_feature_matrix.h5"),
        is_sample=True,
    ),
    Real(
        path="seqfish_tiny/TestSetSmall_CellxGene.csv",
        coordinates="seqfish_tiny/TestSetSmall_CellCoordinates.csv",
        ask="table",
        platform="table",
        count=rows_of,
        is_sample=True,
    ),
    Real(
        path="merfish_hypothalamus_csv/counts.csv",
        coordinates="merfish_hypothalamus_csv/coords.csv",
        ask="table",
        platform="table",
        count=columns_of,
    ),
    Real(path=f"{OSMFISH}/osmFISH_SScortex_mouse_all_cells.loom", platform="table", count=loom_of),
    Real(
        path=f"{OSMFISH}/osmFISH_prep_expression.txt",
        coordinates=f"{OSMFISH}/osmFISH_prep_cell_coordinates.txt",
        ask="table",
        platform="table",
        count=lambda path: columns_of(path, separator="\t"),
    ),
    Real(path="h5ad/st_breast_layer2.h5ad", platform="h5ad", count=h5ad_of),
]


@pytest.mark.parametrize("real", SLIDES, ids=lambda real: real.path + real.metadata.get("list_ID", ""))
def test_every_slide_goes_in_whole(data_dir: Path, real: Real) -> None:
    source = SlideSource(
        slide_id="slide",
        path=data_dir / real.path,
        platform=real.ask,
        coordinates=None if real.coordinates is None else data_dir / real.coordinates,
        labels=None if real.labels is None else data_dir / real.labels,
        metadata=real.metadata,
    )
    section = IngestSection(**real.options)
    n_spots, total = real.count(source.path)
    probe, raw = read_source(source, section)
    assert probe.platform == real.platform
    assert int(raw.counts.sum(dtype=np.int64)) + sum(part.get("counts", 0) for part in raw.dropped.values()) == total
    if n_spots is not None:
        assert raw.counts.shape[0] == n_spots
    labels = attach_labels(raw, source, section.labels, source.labels)
    if total == 0:
        assert real.is_sample
        with pytest.raises(InputError, match="no spot is left after QC"):
            canonical_slide(raw, source=source, probe=probe, section=section, labels=labels)
        return
    record = canonical_slide(raw, source=source, probe=probe, section=section, labels=labels).record
    assert record["counts_in"] == total
    dropped = sum(part.get("counts", 0) for part in record["dropped"].values())
    assert record["counts_kept"] + dropped == total
    assert record["counts_kept"] > 0


def test_no_folder_is_left_out(data_dir: Path) -> None:
    folders = {path.name for path in data_dir.iterdir() if path.is_dir()}
    assert folders == {real.path.split("/")[0] for real in SLIDES}


@pytest.mark.parametrize(
    "name", ["seqfish_tiny", "merfish_hypothalamus_csv", PROSTATE, DG], ids=lambda name: name.split("_")[0]
)
def test_plain_tables_are_not_guessed(data_dir: Path, name: str) -> None:
    with pytest.raises(InputError, match="platform table"):
        read_source(SlideSource(slide_id="slide", path=data_dir / name), IngestSection())
