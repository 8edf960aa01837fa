"""Inputs as they lie after a download, of all platforms: read where the meaning is plain, else said what they are."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from bundles.cosmx import write_cosmx
from bundles.merscope import write_merscope
from bundles.slideseq import BARCODES, write_slideseq
from bundles.stereoseq import some_dnbs, write_gef, write_gem
from bundles.visium import write_visium
from bundles.xenium import some_transcripts, write_xenium

from stpatch.config import IngestSection
from stpatch.errors import InputError
from stpatch.slides.readers.registry import probe_source, read_source
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import SlideSource


def read(
    path: Path,
    *,
    platform: str = "auto",
    coordinates: Path | None = None,
    matrix: Path | None = None,
    transcripts: Path | None = None,
    **options: Any,
) -> RawSlide:
    source = SlideSource(
        slide_id="s", path=path, platform=platform, coordinates=coordinates, matrix=matrix, transcripts=transcripts
    )
    return read_source(source, IngestSection(**options))[1]


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        probe_source(SlideSource(slide_id="s", path=path), IngestSection(**options))
    return str(caught.value)


def same(raw: RawSlide, other: RawSlide) -> bool:
    assert (raw.counts != other.counts).nnz == 0
    assert raw.genes.equals(other.genes)
    return bool((raw.xy == other.xy).all())


# folders above


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: write_cosmx(folder),
        lambda folder: write_merscope(folder),
        lambda folder: write_xenium(folder),
        lambda folder: write_visium(folder),
        lambda folder: write_slideseq(folder),
        lambda folder: write_gem(folder / "a.gem").parent,
    ],
    ids=["cosmx", "merscope", "xenium", "visium", "slideseq", "stereoseq"],
)
@pytest.mark.parametrize("below", ["one", "flatFiles/S1"])
def test_a_slide_in_a_folder_below_is_read_and_noted(tmp_path: Path, write: Callable[[Path], Path], below: str) -> None:
    folder = tmp_path / "given" / below
    folder.mkdir(parents=True)
    expected = read(write(folder))
    raw = read(tmp_path / "given")
    assert same(raw, expected)
    assert raw.notes[0] == f"the slide is in {below} of the folder that was given"


def test_several_slides_below_are_listed(tmp_path: Path) -> None:
    for name in ("region_0", "region_1"):
        (tmp_path / name).mkdir()
        write_merscope(tmp_path / name)
    text = refusal(tmp_path)
    assert "the folder holds several slides" in text
    assert "region_0 (merscope), region_1 (merscope)" in text
    assert "a row of its own" in text


def test_what_is_wrong_in_a_folder_below_is_no_problem_of_another(tmp_path: Path) -> None:
    write_cosmx_folder = tmp_path / "good"
    write_cosmx_folder.mkdir()
    write_cosmx(write_cosmx_folder)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.h5ad").write_bytes(b"no")
    assert read(tmp_path).notes[0].startswith("the slide is in good")


# archives and other things


def tar(path: Path, *, mode: str) -> None:
    with tarfile.open(path, mode) as archive:
        member = tarfile.TarInfo("../../outside.txt")
        member.size = 5
        archive.addfile(member, io.BytesIO(b"12345"))


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../outside.txt", "12345")


def hdf5(**groups: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            for name, values in groups.items():
                file[name] = values

    return write


THINGS: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "outs.tar.gz": (lambda path: tar(path, mode="w:gz"), "a tar archive", "tar xf outs.tar.gz"),
    "outs.tgz": (lambda path: tar(path, mode="w:gz"), "a tar archive", "tar xf outs.tgz"),
    "outs.tar": (lambda path: tar(path, mode="w"), "a tar archive", "tar xf outs.tar"),
    "outs.tar.bz2": (lambda path: tar(path, mode="w:bz2"), "packed with bzip2", "unpack it first"),
    "a.zip": (zipped, "a zip archive", "unzip a.zip"),
    "x.zarr.zip": (zipped, "a zarr store packed as zip", "unzip x.zarr.zip -d x.zarr"),
    "m.h5.gz": (
        lambda path: path.write_bytes(gzip.compress(b"\x89HDF\r\n\x1a\n" + b"0" * 99)),
        "HDF5",
        "gunzip -k m.h5.gz",
    ),
    "a.h5ad.gz": (lambda path: path.write_bytes(gzip.compress(b"\x89HDF\r\n\x1a\n")), "HDF5", "gunzip -k a.h5ad.gz"),
    "a.bz2": (lambda path: path.write_bytes(bz2.compress(b"x")), "packed with bzip2", "unpack"),
    "a.xz": (lambda path: path.write_bytes(lzma.compress(b"x")), "packed with xz", "unpack"),
    "a.rds": (lambda path: path.write_bytes(gzip.compress(b"X\n\0\0\0\3")), "an R object", "h5ad"),
    "a.RData": (lambda path: path.write_bytes(gzip.compress(b"RDX3\nX\n")), "an R object", "h5ad"),
    "a.h5seurat": (hdf5(**{"assays/Spatial/counts": [1], "cell.names": [1]}), "a Seurat file", "h5ad"),
    "a.h5mu": (hdf5(**{"mod/rna/X": [1]}), "MuData", "mdata['rna']"),
    "molecule_info.h5": (hdf5(barcode_idx=[1], umi=[1]), "molecule_info.h5", "filtered_feature_bc_matrix.h5"),
    "feature_slice.h5": (hdf5(**{"feature_slices/0": [1]}), "feature_slice.h5", "binned_outputs"),
    "assays.h5": (hdf5(assay001=[1]), "SummarizedExperiment", "h5ad"),
    "odd.h5": (hdf5(weights=[1]), "no layout that is known", "weights"),
    "spots.csv": (
        lambda path: path.write_text("x,y,z,gene,cell\n1,2,0,A,1\n"),
        "a table of molecules",
        "platform: table",
    ),
    "spots.txt": (lambda path: path.write_text("1\t2\t0\tA\n2\t3\t0\tB\n"), "a table of molecules", "platform: table"),
    "cells.csv": (lambda path: path.write_text("cell,x,y\na,1,2\n"), "a table of places", "column coordinates"),
}


@pytest.mark.parametrize("name", THINGS)
@pytest.mark.parametrize("platform", ["auto", "visium"])
def test_what_no_reader_takes_is_named(tmp_path: Path, name: str, platform: str) -> None:
    write, what, hint = THINGS[name]
    write(tmp_path / name)
    before = sorted(tmp_path.rglob("*"))
    text = refusal(tmp_path / name, platform=platform)
    assert what in text.partition("where:")[0]
    assert hint in text.partition("hint:")[2]
    assert sorted(tmp_path.rglob("*")) == before
    assert not (tmp_path.parent / "outside.txt").exists()


def test_a_folder_of_archives(tmp_path: Path) -> None:
    tar(tmp_path / "S1_spatial.tar.gz", mode="w:gz")
    tar(tmp_path / "S2_spatial.tar.gz", mode="w:gz")
    assert "tar xf S1_spatial.tar.gz (2 in all)" in refusal(tmp_path)


@pytest.mark.parametrize("form", ["file", "folder"])
def test_a_10x_matrix_without_positions(tmp_path: Path, form: str) -> None:
    outs = write_visium(tmp_path / "a", matrix="h5" if form == "file" else "mex")
    for item in (outs / "spatial").iterdir():
        item.unlink()
    (outs / "spatial").rmdir()
    path = outs / f"filtered_feature_bc_matrix{'.h5' if form == 'file' else ''}"
    assert ("a 10x matrix without positions" if form == "file" else "a matrix but no positions") in refusal(path)


def test_a_seq_scope_folder(tmp_path: Path) -> None:
    (tmp_path / "barcodes.tsv").write_text("CGGCT\t1\t1\t1\t2106\t3700\t3259\t15,15,15,0,0\n")
    (tmp_path / "features.tsv").write_text("ENSG1\tA\n")
    (tmp_path / "matrix.mtx").write_text("%%MatrixMarket matrix coordinate integer general\n%\n1 1 1\n1 1 4 4 4 0 0\n")
    assert "a Seq-Scope or NovaScope matrix" in refusal(tmp_path)


def test_a_file_that_is_only_named_h5ad(tmp_path: Path) -> None:
    (tmp_path / "a.h5ad").write_bytes(b"not found")
    assert "is not an HDF5 file" in refusal(tmp_path / "a.h5ad")


# imaging platforms


@pytest.mark.parametrize("prefix", ["cellpose_", "proseg-", "a.b."])
@pytest.mark.parametrize("suffix", ["", "_2"])
def test_of_two_segmentations_the_named_one(tmp_path: Path, prefix: str, suffix: str) -> None:
    write_merscope(tmp_path)
    expected = read(tmp_path)
    write_merscope(tmp_path, prefix=prefix, suffix=suffix, order=[6, 5, 4, 3, 2, 1, 0])
    text = refusal(tmp_path)
    assert "several segmentations" in text
    assert f"{prefix}cell_by_gene{suffix}.csv" in text
    raw = read(tmp_path / f"{prefix}cell_by_gene{suffix}.csv")
    assert same(raw, expected)
    other = tmp_path / f"{prefix}cell_metadata{suffix}.csv"
    table = pd.read_csv(other, dtype=str)
    table["center_x"] = "1"
    table.to_csv(other, index=False)
    assert (read(tmp_path / f"{prefix}cell_by_gene{suffix}.csv").xy[:, 0] == 1).all()
    assert same(read(tmp_path / "cell_by_gene.csv"), expected)
    assert (read(tmp_path / "cell_by_gene.csv", coordinates=other).xy[:, 0] == 1).all()


def test_names_of_vpt(tmp_path: Path) -> None:
    expected = read(write_merscope(tmp_path))
    for item in list(tmp_path.iterdir()):
        item.rename(item.with_name(item.name.replace("cell_", "entity_")))
    assert same(read(tmp_path), expected)


@pytest.mark.parametrize("cell", ["", "NaN", "NA", "nan"])
def test_rows_that_nothing_needs_may_be_without_a_place(tmp_path: Path, cell: str) -> None:
    expected = read(write_merscope(tmp_path))
    path = tmp_path / "cell_metadata.csv"
    header = path.read_text().splitlines()[0].split(",")
    row = ["99" if name == "EntityID" else cell if name.startswith("center") else "1" for name in header]
    path.write_text(path.read_text() + ",".join(row) + "\n")
    assert same(read(tmp_path), expected)
    text = path.read_text()
    path.write_text(text.replace(text.splitlines()[1].split(",")[3], cell, 1))
    with pytest.raises(InputError, match="not a finite number"):
        read(tmp_path)


@pytest.mark.parametrize("table", ["transcripts", "cells"])
def test_parquet_in_parts(tmp_path: Path, table: str) -> None:
    kinds: dict[str, Any] = {"transcripts": {"matrix": None, "cells": None, "transcripts": "transcripts.parquet"}}
    expected = read(write_xenium(tmp_path / "a", **kinds.get(table, {})))
    folder = write_xenium(tmp_path / "b", **kinds.get(table, {}))
    path = folder / f"{table}.parquet"
    frame = pd.read_parquet(path)
    path.unlink()
    path.mkdir()
    for i, start in enumerate(range(0, len(frame), 1 + len(frame) // 3)):
        frame.iloc[start : start + 1 + len(frame) // 3].to_parquet(path / f"part.{i}.parquet", index=False)
    raw = read(folder)
    assert same(raw, expected)
    probe = probe_source(SlideSource(slide_id="s", path=folder), IngestSection())
    assert all(file.is_file() for file in probe.files)
    assert sum(file.parent == path for file in probe.files) == 3
    for part in path.iterdir():
        part.unlink()
    assert "parquet parts is empty" in refusal(folder)


# Stereo-seq and Slide-seq


@pytest.mark.parametrize("count", ["umi_count", "MIDcounts", "count", "counts", "values", "UMI", "UMICounts"])
def test_names_of_the_gems_counts(tmp_path: Path, count: str) -> None:
    raw = read(write_gem(tmp_path / "a.gem", count=count))
    assert raw.counts.sum() == some_dnbs()["count"].sum()


def test_a_folder_of_saw_8(tmp_path: Path) -> None:
    write_gef(tmp_path / "A.tissue.gef")
    write_gef(tmp_path / "A.raw.gef", dnbs=some_dnbs(seed=3))
    with h5py.File(tmp_path / "A.cellbin.gef", "w") as file:
        file.create_group("cellBin")
    raw = read(tmp_path)
    assert raw.counts.sum() == some_dnbs()["count"].sum()
    assert raw.notes[0] == ("read A.tissue.gef; left A.cellbin.gef, A.raw.gef (the tissue goes before the chip)")
    (tmp_path / "A.tissue.gef").rename(tmp_path / "A.gef")
    text = refusal(tmp_path)
    assert "several Stereo-seq files" in text
    assert "A.gef, A.raw.gef" in text
    assert "cellbin" not in text


def edit(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


def each_barcode(change: Callable[[str], str]) -> Callable[[str], str]:
    def apply(text: str) -> str:
        for code in BARCODES:
            text = text.replace(code, change(code))
        return text

    return apply


@pytest.mark.parametrize("letters", ["M", "R", "Y", "S", "K", "B"])
def test_beads_with_letters_of_iupac(tmp_path: Path, letters: str) -> None:
    expected = read(write_slideseq(tmp_path / "a"))
    folder = write_slideseq(tmp_path / "b")
    for path in folder.iterdir():
        edit(path, each_barcode(lambda code: letters + code[1:]))
    assert same(read(folder), expected)


@pytest.mark.parametrize("side", ["MappedDGEForR.csv", "BeadLocationsForR.csv"])
@pytest.mark.parametrize("form", ["{}-1", "{}_1", "{}.1"])
def test_beads_with_a_suffix_on_one_side(tmp_path: Path, side: str, form: str) -> None:
    expected = read(write_slideseq(tmp_path / "a"))
    folder = write_slideseq(tmp_path / "b")
    edit(folder / side, each_barcode(form.format))
    raw = read(folder)
    assert same(raw, expected)
    assert any("barcodes agree but for a suffix" in note for note in raw.notes)


@pytest.mark.parametrize("comments", [["#DGE\tVERSION:1.1\tEXPRESSION_FORMAT:raw"], ["# one", "#two, 2", "#\t3"]])
@pytest.mark.parametrize("layout", ["puck", "mapped"])
def test_comments_before_a_table(tmp_path: Path, comments: list[str], layout: str) -> None:
    expected = read(write_slideseq(tmp_path / "a", layout=layout))
    folder = write_slideseq(tmp_path / "b", layout=layout)
    for path in folder.iterdir():
        edit(path, lambda text: "\n".join([*comments, text]))
    assert same(read(folder), expected)


@pytest.mark.parametrize("hash_first", [True, False])
def test_a_header_that_starts_with_a_hash_is_a_header(tmp_path: Path, hash_first: bool) -> None:
    (tmp_path / "counts.csv").write_text(f"{'#' if hash_first else ''}cell,A,B\nc1,1,2\nc2,3,4\n")
    (tmp_path / "xy.csv").write_text("cell,x,y\nc1,1,2\nc2,3,4\n")
    raw = read(tmp_path / "counts.csv", platform="table", coordinates=tmp_path / "xy.csv")
    assert raw.counts.toarray().tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("types", ["TYPE,numeric,numeric", 'TYPE,"numeric","numeric"'])
def test_a_row_of_types_is_skipped(tmp_path: Path, types: str) -> None:
    (tmp_path / "counts.csv").write_text("GENE,c1,c2\nA,1,2\nB,3,4\n")
    (tmp_path / "xy.csv").write_text(f"NAME,X,Y\n{types}\nc1,1,2\nc2,3,4\n")
    raw = read(tmp_path / "counts.csv", platform="table", coordinates=tmp_path / "xy.csv")
    assert (raw.counts.toarray() == [[1, 3], [2, 4]]).all()


# molecules


def molecules() -> pd.DataFrame:
    table = some_transcripts(200)
    return pd.DataFrame({"x": table["x_location"], "y": table["y_location"], "gene": table["feature_name"]})


SOME = ("x", "y", "z", "gene", "cell")
MOLECULES: dict[str, Callable[[pd.DataFrame, Path], Path]] = {
    "csv": lambda table, path: _write(table, path / "m.csv"),
    "tsv": lambda table, path: _write(table, path / "m.tsv", sep="\t"),
    "gz": lambda table, path: _write(table, path / "m.csv.gz"),
    "z and cell": lambda table, path: _write(
        table.assign(z=0.5, cell=3)[["x", "y", "z", "gene", "cell"]], path / "m.csv"
    ),
    "baysor": lambda table, path: _write(table.rename(columns={"x": "X", "y": "Y", "gene": "Gene"}), path / "m.csv"),
    "target": lambda table, path: _write(table.rename(columns={"gene": "target"}), path / "m.csv"),
    "global": lambda table, path: _write(table.set_axis(["global_x", "global_y", "gene"], axis=1), path / "m.csv"),
    "resolve": lambda table, path: _write(
        table.assign(z=1)[["x", "y", "z", "gene"]], path / "m.txt", sep="\t", header=False
    ),
    "three columns": lambda table, path: _write(table, path / "m.csv", header=False),
    "gene first": lambda table, path: _write(table[["gene", "x", "y"]], path / "m.csv", header=False),
    "parquet": lambda table, path: _parquet(table, path / "m.parquet"),
}


def _write(table: pd.DataFrame, path: Path, **options: Any) -> Path:
    table.to_csv(path, index=False, **options)
    return path


def _parquet(table: pd.DataFrame, path: Path) -> Path:
    table.to_parquet(path, index=False)
    return path


@pytest.mark.parametrize("form", MOLECULES)
def test_tables_of_molecules(tmp_path: Path, form: str) -> None:
    table = molecules()
    raw = read(MOLECULES[form](table, tmp_path), platform="table", bin_um=10.0)
    per_gene = dict(zip(raw.genes["name"], np.asarray(raw.counts.sum(axis=0)).ravel().tolist(), strict=True))
    assert per_gene == table["gene"].value_counts().to_dict()
    row, column = (np.floor(table[axis] / 10).astype(int) for axis in ("y", "x"))
    assert raw.counts.shape[0] == len(set(zip(row, column, strict=True)))
    assert (raw.geometry, raw.um_per_unit, raw.pitch) == ("square", 1.0, 10.0)
    assert any("taken for micrometres" in note for note in raw.notes)


def test_molecules_with_counts_and_a_scale(tmp_path: Path) -> None:
    table = molecules().assign(count=3)
    path = _write(table, tmp_path / "m.csv")
    raw = read(path, platform="table", bin_um=10.0, um_per_unit=0.5)
    assert (raw.counts.sum(), raw.pitch, raw.um_per_unit) == (3 * len(table), 20.0, 0.5)
    bare = _write(table, tmp_path / "n.csv", header=False)
    assert read(bare, platform="table").counts.sum() == 3 * len(table)
    with pytest.raises(InputError, match="a count is negative"):
        read(_write(table.assign(count=-1), tmp_path / "o.csv"), platform="table")


# files that the samplesheet names


NAMED: dict[str, tuple[Callable[[Path], Path], str, str, str]] = {
    "merscope": (lambda folder: write_merscope(folder), "matrix", "cell_by_gene.csv", "m.csv"),
    "merscope cells": (lambda folder: write_merscope(folder), "coordinates", "cell_metadata.csv", "c.csv"),
    "cosmx cells": (lambda folder: write_cosmx(folder), "coordinates", "lung_metadata_file.csv", "c.csv"),
    "xenium": (lambda folder: write_xenium(folder), "matrix", "cell_feature_matrix.h5", "m.h5"),
    "xenium cells": (lambda folder: write_xenium(folder), "coordinates", "cells.parquet", "c.parquet"),
    "visium": (lambda folder: write_visium(folder), "matrix", "filtered_feature_bc_matrix.h5", "m.h5"),
}


@pytest.mark.parametrize("case", NAMED)
def test_files_that_the_samplesheet_names(tmp_path: Path, case: str) -> None:
    write, column, name, other = NAMED[case]
    expected = read(write(tmp_path / "a") if "visium" in case or "xenium" in case else write(_made(tmp_path / "a")))
    (tmp_path / "a" / name).rename(tmp_path / other)
    names: dict[str, Any] = {column: tmp_path / other}
    assert same(read(tmp_path / "a", **names), expected)
    names[column] = tmp_path / "none"
    with pytest.raises(InputError, match=f"there is no such[\\s\\S]*column {column}"):
        read(tmp_path / "a", **names)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
