from __future__ import annotations

import gzip
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from bundles.visium import some_counts, write_tenx_h5
from bundles.xenium import GENES, N_CELLS, some_cells, some_transcripts, write_table, write_xenium

from stpatch.config import IngestSection
from stpatch.errors import InputError
from stpatch.slides.readers.registry import probe_source, reader_of
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource


def read(path: Path, **options: object) -> tuple[Probe, RawSlide]:
    source, section = SlideSource(slide_id="slide", path=path), IngestSection(**options)
    probe = reader_of("xenium").probe(source, section)
    assert probe is not None
    assert all(file.is_file() for file in probe.files)
    return probe, reader_of("xenium").read(source, section, probe)


@pytest.mark.parametrize("matrix", ["h5", "mex"])
@pytest.mark.parametrize("cells", ["cells.parquet", "cells.csv.gz", "cells.csv"])
@pytest.mark.parametrize("ids", ["text", "int", "float", "bytes"])
def test_every_variant_gives_the_same_slide(tmp_path: Path, matrix: str, cells: str, ids: str) -> None:
    if "csv" in cells and ids in ("bytes", "float"):
        pytest.skip("text has neither")
    probe, raw = read(write_xenium(tmp_path, matrix=matrix, cells=cells, ids=ids))
    assert (probe.n_spots, probe.n_genes) == raw.counts.shape == (N_CELLS, len(GENES))
    assert (probe.version, probe.unit, raw.um_per_unit) == ("xenium-3.0.0.15", "um", 1.0)
    assert (raw.counts != some_counts(N_CELLS, len(GENES))).nnz == 0
    np.testing.assert_array_equal(raw.xy, some_cells()[["x_centroid", "y_centroid"]])
    np.testing.assert_array_equal(raw.spots["area"], some_cells()["cell_area"])
    assert raw.genes["feature_type"].tolist() == [kind for *_, kind in GENES]
    assert raw.spot_ids[0] == ("1" if ids in ("int", "float") else "aaaa1-1")


def test_other_order_and_row_names(tmp_path: Path) -> None:
    _, raw = read(write_xenium(tmp_path, cells="cells.csv.gz", order=list(range(N_CELLS))[::-1], row_names=True))
    np.testing.assert_array_equal(raw.xy, some_cells()[["x_centroid", "y_centroid"]])
    assert "joined by cell_id" in raw.notes[0]


def test_path_may_be_experiment_file_and_version_anything(tmp_path: Path) -> None:
    folder = write_xenium(tmp_path, version="R&D")
    assert read(folder / "experiment.xenium")[0].version == "R&D"
    (folder / "experiment.xenium").write_text("no json")
    assert read(folder)[0].version == ""
    (folder / "experiment.xenium").unlink()
    assert probe_source(SlideSource(slide_id="a", path=folder), IngestSection()).platform == "xenium"


@pytest.mark.parametrize("transcripts", ["transcripts.parquet", "transcripts.csv.gz"])
@pytest.mark.parametrize("bytes_names", [True, False])
def test_transcripts(tmp_path: Path, transcripts: str, bytes_names: bool) -> None:
    if bytes_names and "csv" in transcripts:
        pytest.skip("text has no bytes")
    folder = write_xenium(tmp_path, transcripts=transcripts, bytes_names=bytes_names)
    _, raw = read(folder, bin_um=10)
    molecules = some_transcripts()
    good = molecules[molecules["qv"] >= 20]
    assert raw.dropped == {"qv below 20": {"spots": 0, "counts": len(molecules) - len(good)}}
    assert raw.counts.sum() == len(good)
    by_gene = dict(zip(raw.genes["name"], np.asarray(raw.counts.sum(axis=0)).ravel().tolist(), strict=True))
    assert {name: n for name, n in by_gene.items() if n} == good["feature_name"].value_counts().to_dict()
    bins = good.groupby([np.floor(good["y_location"] / 10), np.floor(good["x_location"] / 10)]).size()
    centres = dict(zip(map(tuple, raw.xy.tolist()), np.asarray(raw.counts.sum(axis=1)).ravel().tolist(), strict=True))
    assert centres == {(10 * column + 5, 10 * row + 5): n for (row, column), n in bins.items()}
    kinds = dict(zip(raw.genes["name"], raw.genes["feature_type"], strict=True))
    assert kinds["CD3E"] == kinds["ACTA2"] == "Gene Expression"
    assert kinds["Intergenic_1"] == "Control"
    assert "UnassignedCodeword_0001" in kinds
    assert (raw.geometry, raw.pitch, raw.um_per_unit) == ("square", 10.0, 1.0)


@pytest.mark.parametrize("is_gene", [True, False])
def test_transcripts_without_cells(tmp_path: Path, is_gene: bool) -> None:
    folder = write_xenium(tmp_path, matrix=None, cells=None, transcripts="transcripts.parquet", is_gene=is_gene)
    probe, raw = read(folder, min_qv=0)
    assert probe.pitch_um == 10
    assert raw.counts.sum() == len(some_transcripts())
    assert any("bin_um is not set" in note for note in raw.notes)
    kinds = dict(zip(raw.genes["name"], raw.genes["feature_type"], strict=True))
    assert kinds["CD3E"] == ("Gene Expression" if is_gene else "")
    assert kinds["Intergenic_1"] == ("Control" if is_gene else "")


def test_transcripts_without_quality_are_noted(tmp_path: Path) -> None:
    folder = write_xenium(tmp_path)
    write_table(some_transcripts().drop(columns="qv"), folder / "transcripts.parquet")
    _, raw = read(folder, bin_um=10)
    assert raw.counts.sum() == len(some_transcripts())
    assert "no qv" in raw.notes[0]


def test_cells_without_counts_are_counted(tmp_path: Path) -> None:
    folder = write_xenium(tmp_path)
    counts = some_counts(N_CELLS, len(GENES))[2:]
    write_tenx_h5(folder / "cell_feature_matrix.h5", counts, barcodes=list(some_cells()["cell_id"][2:]), genes=GENES)
    _, raw = read(folder)
    assert raw.dropped == {"no counts": {"spots": 2, "counts": 0}}
    np.testing.assert_array_equal(raw.xy[:, 0], some_cells()["x_centroid"][2:])


def _cells(change):
    return lambda folder: write_table(change(some_cells()), folder / "cells.parquet")


def _truncate(name: str):
    def cut(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return cut


def _set(name: str, value: object):
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame[name] = frame[name].astype(object if isinstance(value, str) else float)
        frame.loc[3, name] = value
        return frame

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_cells(lambda t: t.drop(columns="x_centroid")), "no column x_centroid"),
        (_cells(lambda t: t.drop(columns="cell_id")), "no column cell_id"),
        (_cells(_set("x_centroid", np.nan)), "not a finite number"),
        (_cells(_set("y_centroid", np.inf)), "not a finite number"),
        (_cells(_set("cell_id", "aaaa1-1")), "given twice"),
        (_cells(lambda t: t.iloc[:4]), r"5 of 9 cells of the counts are not"),
        (_cells(lambda t: t.assign(cell_id=[f"b{i}" for i in range(N_CELLS)])), "no cell of the counts"),
        (_cells(lambda t: t.assign(cell_id=[None, *t["cell_id"][1:]])), "no id"),
        (_cells(lambda t: t.iloc[:0]), "no cell of the counts"),
        (_truncate("cells.parquet"), "cannot be read"),
        (_truncate("cell_feature_matrix.h5"), "cannot be read|no 10x matrix"),
        (lambda folder: (folder / "cells.parquet").unlink(), "incomplete"),
        (lambda folder: (folder / "cell_feature_matrix.h5").unlink(), "incomplete"),
    ],
)
def test_problems(tmp_path: Path, change, message: str) -> None:
    change(write_xenium(tmp_path))
    with pytest.raises(InputError, match=message):
        read(tmp_path)


@pytest.mark.parametrize("value", [-1, 0.5, np.nan])
def test_bad_counts(tmp_path: Path, value: float) -> None:
    write_xenium(tmp_path)
    with h5py.File(tmp_path / "cell_feature_matrix.h5", "a") as file:
        data = file["matrix/data"][:].astype(float)
        data[2] = value
        del file["matrix/data"]
        file["matrix/data"] = data
    with pytest.raises(InputError, match=r"negative|fractional|finite"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="feature_name"), "no column feature_name"),
        (lambda t: t.assign(x_location=np.nan), "missing or no number"),
        (lambda t: t.assign(x_location=np.inf), "missing or no number"),
        (lambda t: t.assign(x_location=1e12), "too far out"),
        (lambda t: t.assign(feature_name=""), "no gene"),
        (lambda t: t.assign(qv=0.0), "no molecule is left"),
        (lambda t: t.iloc[:0], "no molecule is left"),
        (lambda t: t.assign(x_location="here"), "cannot be read"),
    ],
)
@pytest.mark.parametrize("name", ["transcripts.parquet", "transcripts.csv.gz"])
def test_transcript_problems(tmp_path: Path, change, message: str, name: str) -> None:
    write_table(change(some_transcripts()), write_xenium(tmp_path) / name)
    with pytest.raises(InputError, match=message):
        read(tmp_path, bin_um=10)


def test_truncated_gzip(tmp_path: Path) -> None:
    write_xenium(tmp_path, cells="cells.csv.gz", transcripts="transcripts.csv.gz")
    for name, options in (("cells.csv.gz", {}), ("transcripts.csv.gz", {"bin_um": 10})):
        _truncate(name)(tmp_path)
        with pytest.raises(InputError, match=r"cut short|cannot be read"):
            read(tmp_path, **options)


def test_windows_lines_and_byte_order_mark(tmp_path: Path) -> None:
    write_xenium(tmp_path, cells="cells.csv.gz", transcripts="transcripts.csv.gz")
    totals = [read(tmp_path, **options)[1].counts.sum() for options in ({}, {"bin_um": 10})]
    for name in ("cells.csv.gz", "transcripts.csv.gz"):
        text = gzip.decompress((tmp_path / name).read_bytes())
        (tmp_path / name).write_bytes(gzip.compress(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n")))
    assert totals == [read(tmp_path, **options)[1].counts.sum() for options in ({}, {"bin_um": 10})]
    np.testing.assert_array_equal(read(tmp_path)[1].xy, some_cells()[["x_centroid", "y_centroid"]])


def test_bins_without_transcripts(tmp_path: Path) -> None:
    write_xenium(tmp_path)
    with pytest.raises(InputError, match="no molecule table"):
        read(tmp_path, bin_um=10)


def test_real_totals(data_dir: Path) -> None:
    folder = data_dir / "xenium_breast_mini"
    probe, raw = read(folder)
    with h5py.File(folder / "cell_feature_matrix.h5") as file:
        assert raw.counts.sum() == file["matrix/data"][:].sum() == 21
    assert raw.counts.shape == (6, 4)
    assert probe.version == "Xenium-1.0.1"
    molecules = pq.read_table(folder / "transcripts.parquet").to_pandas()
    _, raw = read(folder, bin_um=5)
    assert raw.counts.sum() == (molecules["qv"] >= 20).sum()
