from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from bundles.visium import UM_PER_PX, barcode_names, gene_rows, some_counts, write_tenx_h5, write_visium

from stpatch.config import IngestSection
from stpatch.errors import InputError
from stpatch.slides.readers.registry import reader_of
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource


def read(path: Path) -> tuple[Probe, RawSlide]:
    source = SlideSource(slide_id="slide", path=path)
    reader = reader_of("visium")
    probe = reader.probe(source, IngestSection())
    assert probe is not None
    return probe, reader.read(source, IngestSection(), probe)


@pytest.mark.parametrize("layout", ["v1", "v1h", "v2", "parquet", "txt"])
@pytest.mark.parametrize("matrix", ["h5", "mex"])
def test_every_variant_gives_the_same_slide(tmp_path: Path, layout: str, matrix: str) -> None:
    probe, raw = read(write_visium(tmp_path, layout=layout, matrix=matrix))
    assert (probe.n_spots, probe.n_genes) == raw.counts.shape == (25, 8) == (25, len(raw.genes))
    assert all(path.is_file() for path in probe.files)
    assert raw.geometry == "hex"
    assert raw.counts.dtype == np.uint16
    assert (raw.counts != some_counts(25, 8)).nnz == 0
    assert raw.um_per_unit == pytest.approx(UM_PER_PX)
    assert raw.pitch == pytest.approx(200)
    assert raw.spots["in_tissue"].all()
    assert raw.genes["name"][3] == "GENE3"
    assert raw.genes["ensembl_id"][3] == "ENSG00000000003"
    names = barcode_names(30)
    for i, spot in enumerate(raw.spot_ids):
        row, column = divmod(names.index(spot), 5)
        assert raw.array is not None
        assert raw.array[i].tolist() == [row, 2 * column + row % 2]
        np.testing.assert_allclose(raw.xy[i], [(2 * column + row % 2) * 100 + 50, row * 100 * np.sqrt(3) + 50])


def test_path_may_be_parent_outs_matrix_folder_or_matrix(tmp_path: Path) -> None:
    outs = write_visium(tmp_path / "sample" / "outs", matrix="both")
    for path in (
        tmp_path / "sample",
        outs,
        outs / "filtered_feature_bc_matrix",
        outs / "filtered_feature_bc_matrix.h5",
    ):
        _, raw = read(path)
        assert raw.counts.shape == (25, 8)


def test_filtered_goes_before_raw_and_h5_before_mex(tmp_path: Path) -> None:
    write_visium(tmp_path, kind="raw")
    assert read(tmp_path)[1].counts.shape == (30, 8)
    write_visium(tmp_path, matrix="both")
    probe, raw = read(tmp_path)
    assert probe.files[0].name == "filtered_feature_bc_matrix.h5"
    assert "raw_feature_bc_matrix.h5" in raw.notes[0]
    assert raw.counts.shape == (25, 8)


def test_in_tissue_positions_without_counts_are_counted(tmp_path: Path) -> None:
    write_visium(tmp_path)
    counts = some_counts(20, 8)
    names = [name for i, name in enumerate(barcode_names(30)) if i % 7][:20]
    write_tenx_h5(tmp_path / "filtered_feature_bc_matrix.h5", counts, barcodes=names, genes=gene_rows(8))
    _, raw = read(tmp_path)
    assert raw.dropped == {"no counts": {"spots": 5, "counts": 0}}


def test_prefixed_matrix_is_found(tmp_path: Path) -> None:
    write_visium(tmp_path)
    (tmp_path / "filtered_feature_bc_matrix.h5").rename(tmp_path / "GSM1_filtered_feature_bc_matrix.h5")
    assert read(tmp_path)[1].counts.shape == (25, 8)


def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    write_visium(tmp_path)
    table = tmp_path / "spatial" / "tissue_positions.csv"
    expected = read(tmp_path)[1]
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes().replace(b"\n", b"\r\n"))
    found = read(tmp_path)[1]
    np.testing.assert_array_equal(found.xy, expected.xy)
    np.testing.assert_array_equal(found.spot_ids, expected.spot_ids)


def test_columns_are_found_by_name_where_there_is_a_header(tmp_path: Path) -> None:
    write_visium(tmp_path)
    table = tmp_path / "spatial" / "tissue_positions.csv"
    expected = read(tmp_path)[1]
    frame = pd.read_csv(table)
    frame[frame.columns[::-1]].to_csv(table, index=False)
    np.testing.assert_array_equal(read(tmp_path)[1].xy, expected.xy)


def test_one_row_of_spots_gives_the_scale_and_one_spot_does_not(tmp_path: Path) -> None:
    _, raw = read(write_visium(tmp_path / "row", rows=1))
    assert raw.um_per_unit == pytest.approx(UM_PER_PX)
    _, raw = read(write_visium(tmp_path / "one", rows=1, columns=1, kind="raw"))
    assert raw.counts.shape == (1, 8)
    assert raw.um_per_unit is None


def edit(column: str, row: int | slice, value: object) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        table = folder / "spatial" / "tissue_positions.csv"
        frame = pd.read_csv(table).astype(object)
        frame.loc[row, column] = value
        frame.to_csv(table, index=False)

    return apply


def drop_column(folder: Path) -> None:
    table = folder / "spatial" / "tissue_positions.csv"
    pd.read_csv(table).drop(columns="array_col").to_csv(table, index=False)


def swap_array(folder: Path) -> None:
    table = folder / "spatial" / "tissue_positions.csv"
    pd.read_csv(table).rename(columns={"array_row": "array_col", "array_col": "array_row"}).to_csv(table, index=False)


def other_slide(folder: Path) -> None:
    table = folder / "spatial" / "tissue_positions.csv"
    table.write_text(table.read_text().replace("-1,", "ACGT-1,"))


def no_positions(folder: Path) -> None:
    (folder / "spatial" / "tissue_positions.csv").unlink()


def no_matrix(folder: Path) -> None:
    (folder / "filtered_feature_bc_matrix.h5").unlink()


def no_spatial(folder: Path) -> None:
    (folder / "spatial").rename(folder / "elsewhere")


def cut(folder: Path) -> None:
    matrix = folder / "filtered_feature_bc_matrix.h5"
    matrix.write_bytes(matrix.read_bytes()[: matrix.stat().st_size // 2])


def set_value(key: str, value: float) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        with h5py.File(folder / "filtered_feature_bc_matrix.h5", "r+") as file:
            values = file[f"matrix/{key}"][:].astype(np.float64)
            values[1] = value
            del file[f"matrix/{key}"]
            file[f"matrix/{key}"] = values

    return apply


def repeated_barcode(folder: Path) -> None:
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "r+") as file:
        file["matrix/barcodes"][1] = file["matrix/barcodes"][0]


def no_key(folder: Path) -> None:
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "r+") as file:
        del file["matrix/features/id"]


def empty_table(folder: Path) -> None:
    (folder / "spatial" / "tissue_positions.csv").write_text("")


def parquet_damaged(folder: Path) -> None:
    (folder / "spatial" / "tissue_positions.parquet").write_bytes(b"PAR1 and then nothing")


def two_matrices(folder: Path) -> None:
    matrix = folder / "filtered_feature_bc_matrix.h5"
    (folder / "a_filtered_feature_bc_matrix.h5").write_bytes(matrix.read_bytes())


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (edit("pxl_col_in_fullres", 3, "NaN"), "pxl_col_in_fullres is not a finite number"),
        (edit("pxl_row_in_fullres", 3, "inf"), "pxl_row_in_fullres is not a finite number"),
        (edit("pxl_row_in_fullres", slice(None), "1e300"), "larger than any slide"),
        (edit("array_row", 3, "1.5"), "array_row is out of range"),
        (edit("in_tissue", 3, "7"), "in_tissue is out of range"),
        (edit("array_col", 3, "5"), "not on Visium's hexagonal lattice"),
        (edit("barcode", 3, "AAAAAAAAAAAAAAAA-1"), "a barcode is given twice"),
        (edit("barcode", 3, "TTTTTTTTTTTTTTTT-1"), "have no position"),
        (drop_column, "lacks a column"),
        (swap_array, "swapped"),
        (other_slide, "of another slide"),
        (no_positions, "no positions"),
        (no_matrix, "no matrix"),
        (no_spatial, "no positions"),
        (cut, "cut short"),
        (set_value("data", -1), "a count is negative"),
        (set_value("data", 0.5), "a count is fractional"),
        (set_value("data", np.nan), "not a finite number"),
        (set_value("indices", 99), "outside the matrix"),
        (set_value("indptr", 10**6), "indptr"),
        (set_value("shape", 99), "differ in size"),
        (repeated_barcode, "a barcode is given twice"),
        (no_key, "has no 'id'"),
        (empty_table, "is empty"),
        (parquet_damaged, "parquet"),
        (two_matrices, "several matrices"),
    ],
)
def test_problems_end_in_a_clear_error(tmp_path: Path, problem: Callable[[Path], None], message: str) -> None:
    write_visium(tmp_path)
    problem(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_other_layouts_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "binned_outputs").mkdir()
    (tmp_path / "notes.txt").write_text("")
    for path in (tmp_path, tmp_path / "notes.txt"):
        assert reader_of("visium").probe(SlideSource(slide_id="slide", path=path), IngestSection()) is None


@pytest.mark.parametrize(
    ("folder", "pitch"),
    [
        ("visium_mouse_brain_mini/section1/outs", 137.6),
        ("visium_human_mini_h5", 138),
        ("visium_cytassist_mouse", 21.38),
    ],
)
def test_real_slides(data_dir: Path, folder: str, pitch: float) -> None:
    probe, raw = read(data_dir / folder)
    matrix = probe.files[0]
    if matrix.suffix == ".h5":
        with h5py.File(matrix) as file:
            total = file["matrix/data"][:].sum()
    else:
        total = pd.read_csv(matrix, sep=" ", comment="%", skiprows=3, header=None)[2].sum()
    assert raw.counts.sum() == total
    assert raw.pitch == pytest.approx(pitch, rel=0.001)


def test_totals_of_real_slides(data_dir: Path) -> None:
    assert read(data_dir / "visium_cytassist_mouse")[1].counts.shape == (2898, 19465)
    assert read(data_dir / "visium_mouse_brain_mini/section1/outs")[1].spots["in_tissue"].sum() == 22
    dropped = read(data_dir / "visium_human_mini_h5")[1].dropped
    assert dropped == {"no counts": {"spots": 4135, "counts": 0}}
