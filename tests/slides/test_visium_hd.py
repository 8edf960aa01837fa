from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from bundles.visium import gene_rows, write_mex, write_tenx_h5
from bundles.visium_hd import UM_PER_PX, square_counts, write_square, write_visium_hd
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from stpatch.config import IngestSection
from stpatch.errors import InputError
from stpatch.slides.formats.tenx import hd_bins
from stpatch.slides.readers.registry import probe_source, reader_of
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource


def read(path: Path, **options: Any) -> tuple[Probe, RawSlide]:
    source = SlideSource(slide_id="slide", path=path)
    section = IngestSection(**options)
    reader = reader_of("visium_hd")
    probe = reader.probe(source, section)
    assert probe is not None
    return probe, reader.read(source, section, probe)


@pytest.mark.parametrize("matrix", ["h5", "mex"])
@pytest.mark.parametrize("positions", ["parquet", "v2"])
@pytest.mark.parametrize("ordered", [True, False])
def test_bins_are_pixels(tmp_path: Path, matrix: str, positions: str, *, ordered: bool) -> None:
    folder = write_square(tmp_path / "square_002um", matrix=matrix, positions=positions, ordered=ordered)
    probe, raw = read(folder)
    assert raw.geometry == "square"
    assert (probe.n_spots, probe.n_genes) == raw.counts.shape == (99, 6)
    assert (probe.pitch_um, raw.um_per_unit, raw.pitch) == (2, UM_PER_PX, 8)
    assert raw.array is not None
    full = square_counts(12, 10, 6)
    assert (raw.counts != full[raw.array[:, 0] * 10 + raw.array[:, 1]]).nnz == 0
    np.testing.assert_allclose(raw.xy, (raw.array[:, ::-1] + 0.5) * 8)
    assert raw.spots["in_tissue"].all()
    assert all(file.is_file() for file in probe.files)


def test_config_names_the_bin_of_an_outs_folder(tmp_path: Path) -> None:
    outs = write_visium_hd(tmp_path / "sample" / "outs")
    for path in (tmp_path / "sample", outs, outs / "binned_outputs"):
        assert read(path)[0].pitch_um == 8
        assert read(path, hd_bin_um=2)[0].pitch_um == 2
    with pytest.raises(InputError, match="no bins of 16 um") as caught:
        read(outs, hd_bin_um=16)
    assert "square_002um, square_008um" in str(caught.value)


def test_it_is_recognized_as_nothing_else(tmp_path: Path) -> None:
    outs = write_visium_hd(tmp_path)
    for path in (outs, outs / "binned_outputs" / "square_002um"):
        source = SlideSource(slide_id="slide", path=path)
        assert reader_of("visium").probe(source, IngestSection()) is None
        assert probe_source(source, IngestSection(platform="visium_hd")).platform == "visium_hd"


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(2, 14), columns=st.integers(2, 14), factor=st.integers(2, 5), strip=st.sampled_from([1, 40, 10**6])
)
@pytest.mark.parametrize(("matrix", "ordered"), [("h5", True), ("h5", False), ("mex", True)])
def test_coarser_bins_are_sums(
    tmp_path_factory: pytest.TempPathFactory,
    rows: int,
    columns: int,
    factor: int,
    strip: int,
    matrix: str,
    *,
    ordered: bool,
) -> None:
    folder = tmp_path_factory.mktemp("bins") / "square_002um"
    write_square(folder, rows=rows, columns=columns, matrix=matrix, ordered=ordered)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hd_bins, "STRIP", strip)
        probe, raw = read(folder, bin_um=2 * factor)
    assert probe.pitch_um == 2 * factor
    assert probe.n_spots is None
    full = square_counts(rows, columns, 6).toarray().reshape(rows, columns, 6)
    full[0] = full[:, 0] = 0
    expected = np.zeros((-(-rows // factor), -(-columns // factor), 6), int)
    for row in range(rows):
        for column in range(columns):
            expected[row // factor, column // factor] += full[row, column]
    assert raw.array is not None
    found = np.zeros_like(expected)
    found[raw.array[:, 0], raw.array[:, 1]] = raw.counts.toarray()
    np.testing.assert_array_equal(found, expected)
    assert len(set(raw.spot_ids)) == len(raw.spot_ids)
    assert raw.pitch == pytest.approx(8 * factor)
    assert raw.spots["in_tissue"].all()


def test_without_scale_factors_the_bins_give_the_scale(tmp_path: Path) -> None:
    folder = write_square(tmp_path / "square_002um")
    (folder / "spatial" / "scalefactors_json.json").unlink()
    _, raw = read(folder)
    assert raw.um_per_unit == pytest.approx(UM_PER_PX)
    assert "no scalefactors_json.json" in raw.notes[0]


@pytest.mark.parametrize("gone", [("microns_per_pixel",), ("microns_per_pixel", "bin_size_um")])
def test_scale_factors_without_a_scale_are_as_none(tmp_path: Path, gone: tuple[str, ...]) -> None:
    folder = write_square(tmp_path / "square_008um", bin_um=8, rows=4, columns=5)
    file = folder / "spatial" / "scalefactors_json.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps({name: value for name, value in values.items() if name not in gone}))
    probe, raw = read(folder)
    assert raw.um_per_unit == pytest.approx(UM_PER_PX)
    assert "no microns_per_pixel in scalefactors_json.json" in probe.notes[0]


@pytest.mark.parametrize("kind", ["Protein Expression", "Antibody Capture"])
@pytest.mark.parametrize("layout", ["h5", "mex"])
@pytest.mark.parametrize("bin_um", [None, 16])
def test_scaled_proteins_do_not_stop_the_genes(tmp_path: Path, kind: str, layout: str, bin_um: int | None) -> None:
    folder = write_square(tmp_path / "square_008um", bin_um=8, rows=4, columns=5)
    plain = read(folder, bin_um=bin_um)[1]
    matrix = folder / "filtered_feature_bc_matrix.h5"
    with h5py.File(matrix, "r") as file:
        names = [text.decode() for text in file["matrix/barcodes"][:]]
    dense = square_counts(4, 5, 6).toarray().reshape(4, 5, 6)[1:, 1:].reshape(len(names), 6).astype(np.float64)
    scaled = sparse.csr_matrix(np.column_stack([dense, 0.5 + np.arange(len(names))]))
    genes = [*gene_rows(6), ("P1", "P1", kind)]
    matrix.unlink()
    if layout == "h5":
        write_tenx_h5(matrix, scaled, barcodes=names, genes=genes, dtype=np.float32)
    else:
        mtx = write_mex(matrix.with_suffix(""), scaled, barcodes=names, genes=genes, zipped=False) / "matrix.mtx"
        mtx.write_text(mtx.read_text().replace("integer", "real", 1))
    raw = read(folder, bin_um=bin_um)[1]
    assert (raw.counts[:, :6] != plain.counts).nnz == 0
    assert not raw.counts[:, [6]].toarray().any()
    assert any(f"1 features of type {kind} hold values that are not whole numbers" in note for note in raw.notes)


def edit(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        table = folder / "spatial" / "tissue_positions.parquet"
        change(pd.read_parquet(table)).to_parquet(table, index=False)

    return apply


def factors(**values: object) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        file = folder / "spatial" / "scalefactors_json.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    return apply


def nan_coordinate(frame: pd.DataFrame) -> pd.DataFrame:
    frame.loc[30, "pxl_col_in_fullres"] = np.nan
    return frame


def other_index(frame: pd.DataFrame) -> pd.DataFrame:
    frame.loc[30, "array_row"] += 1
    return frame


def strange_barcode(frame: pd.DataFrame) -> pd.DataFrame:
    frame.loc[30, "barcode"] = "s_002um_0000x_00001-1"
    return frame


def cut_parquet(folder: Path) -> None:
    table = folder / "spatial" / "tissue_positions.parquet"
    table.write_bytes(table.read_bytes()[:200])


def no_positions(folder: Path) -> None:
    (folder / "spatial" / "tissue_positions.parquet").unlink()


def cut_matrix(folder: Path) -> None:
    matrix = folder / "filtered_feature_bc_matrix.h5"
    matrix.write_bytes(matrix.read_bytes()[: matrix.stat().st_size // 2])


def set_barcode(text: bytes) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        with h5py.File(folder / "filtered_feature_bc_matrix.h5", "r+") as file:
            file["matrix/barcodes"][3] = text

    return apply


def words(folder: Path) -> None:
    (folder / "spatial" / "scalefactors_json.json").write_text("{")


@pytest.mark.parametrize("bin_um", [None, 4])
@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (edit(nan_coordinate), "not a finite number"),
        (edit(other_index), "not what the barcode says"),
        (edit(strange_barcode), "none of these bins"),
        (edit(lambda frame: frame.drop(columns="array_row")), "lacks a column"),
        (edit(lambda frame: frame.iloc[:40]), "bins of the matrix have no position"),
        (edit(lambda frame: pd.concat([frame, frame.iloc[31:32]])), "two positions"),
        (cut_parquet, "parquet"),
        (no_positions, "no positions"),
        (cut_matrix, "cut short"),
        (set_barcode(b"s_008um_00001_00003-1"), "none of these bins"),
        (set_barcode(b"s_002um_00001_00001-1"), "given twice"),
        (set_barcode(b"s_002um_90001_00001-1"), "outside every Visium HD array"),
        (factors(bin_size_um=8.0), "another bin size"),
        (factors(microns_per_pixel=0), "not a scale"),
        (factors(microns_per_pixel="many"), "scale factors cannot be read"),
        (words, "scale factors cannot be read"),
    ],
)
def test_problems_end_in_a_clear_error(
    tmp_path: Path, problem: Callable[[Path], None], message: str, bin_um: float | None
) -> None:
    folder = write_square(tmp_path / "square_002um")
    problem(folder)
    with pytest.raises(InputError, match=message) as caught:
        read(folder, bin_um=bin_um)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("bin_um", [1.0, 5.0])
def test_a_coarser_bin_must_be_a_multiple(tmp_path: Path, bin_um: float) -> None:
    with pytest.raises(InputError, match="not a multiple"):
        read(write_square(tmp_path / "square_002um"), bin_um=bin_um)


def test_real_sample(data_dir: Path) -> None:
    folder = data_dir / "visium_hd_mini" / "binned_outputs" / "square_002um"
    probe, raw = read(folder)
    assert raw.counts.shape == (10, 10)
    assert raw.counts.sum() == 0
    assert raw.pitch == pytest.approx(2 / 0.2738242950835738)
    table = pd.read_parquet(folder / "spatial" / "tissue_positions.parquet").set_index("barcode").loc[raw.spot_ids]
    np.testing.assert_array_equal(raw.xy, table[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy())
    assert read(data_dir / "visium_hd_mini", hd_bin_um=2)[0].files == probe.files
