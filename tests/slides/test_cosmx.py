from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bundles.cosmx import FOV_PX, GENES, UM, some_cells, some_counts, some_fovs, some_molecules, write_cosmx
from bundles.xenium import write_table

from stpatch.config import IngestSection
from stpatch.errors import InputError
from stpatch.slides.formats.text.fov import pixel_of, read_fovs
from stpatch.slides.readers.registry import probe_source, reader_of
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource

BACKGROUND = some_counts().query("cell_ID == 0")[GENES].to_numpy().sum()


def read(path: Path, **options: object) -> tuple[Probe, RawSlide]:
    source, section = SlideSource(slide_id="slide", path=path), IngestSection(**options)
    probe = reader_of("cosmx").probe(source, section)
    assert probe is not None
    assert all(file.is_file() for file in probe.files)
    return probe, reader_of("cosmx").read(source, section, probe)


@pytest.mark.parametrize("end", [".csv", ".csv.gz"])
@pytest.mark.parametrize(
    ("place", "fovs"),
    [("global", "px"), ("global", None), ("both", "px"), ("local", "px"), ("local", "mm"), ("local", "global_mm"),
     ("local", "both")],
)  # fmt: skip
def test_every_variant_gives_the_same_slide(tmp_path: Path, end: str, place: str, fovs: str | None) -> None:
    probe, raw = read(write_cosmx(tmp_path, end=end, place=place, fovs=fovs))
    assert raw.spot_ids.tolist() == ["1_1", "1_2", "1_3", "2_1", "2_2", "2_3"]
    np.testing.assert_array_equal(raw.counts.toarray(), some_counts().query("cell_ID > 0")[GENES])
    np.testing.assert_allclose(raw.xy, some_cells()[["CenterX_global_px", "CenterY_global_px"]])
    assert raw.dropped == {"background (cell_ID 0)": {"spots": 2, "counts": BACKGROUND}}
    assert (probe.n_genes, probe.unit) == (4, "px")
    assert raw.um_per_unit == probe.um_per_unit == pytest.approx(UM)
    np.testing.assert_allclose(raw.spots["area"], some_cells()["Area"] * UM**2)
    assert probe_source(SlideSource(slide_id="a", path=tmp_path), IngestSection()).platform == "cosmx"


def test_path_may_be_a_file(tmp_path: Path) -> None:
    write_cosmx(tmp_path, molecules=".csv")
    assert read(tmp_path / "lung_exprMat_file.csv")[1].geometry == "irregular"
    assert read(tmp_path / "lung_tx_file.csv")[1].geometry == "square"


@pytest.mark.parametrize("end", [".csv", ".csv.gz", ".parquet"])
@pytest.mark.parametrize(("place", "fovs"), [("global", None), ("global", "px"), ("local", "px"), ("local", "mm")])
def test_molecules(tmp_path: Path, end: str, place: str, fovs: str | None) -> None:
    write_cosmx(tmp_path, place=None, fovs=fovs, molecules=end, molecule_place=place)
    probe, raw = read(tmp_path, bin_um=12)
    um = some_molecules()[["x_global_px", "y_global_px"]] * raw.um_per_unit
    bins = um.groupby([um["y_global_px"] // 12, um["x_global_px"] // 12]).size()
    centres = [tuple(place) for place in np.rint(raw.xy * raw.um_per_unit).astype(int).tolist()]
    totals = np.asarray(raw.counts.sum(axis=1)).ravel().tolist()
    expected = {(int(12 * column + 6), int(12 * row + 6)): n for (row, column), n in bins.items()}
    assert dict(zip(centres, totals, strict=True)) == expected
    assert raw.pitch == pytest.approx(12 / raw.um_per_unit)
    assert (probe.pitch_um, raw.geometry) == (12, "square")
    _, raw = read(tmp_path)
    assert any("bin_um is not set" in note for note in raw.notes)
    assert raw.counts.sum() == len(um)


def test_pixel_by_fact(tmp_path: Path) -> None:
    def pixel(frame: pd.DataFrame, um_per_unit: float | None = None) -> float:
        return pixel_of(read_fovs(write_table(frame, tmp_path / "f.csv")), um_per_unit=um_per_unit).um

    assert pixel(some_fovs("px")) == UM
    assert pixel(some_fovs("both", um=0.168)) == pytest.approx(0.168)
    assert pixel(some_fovs("both"), um_per_unit=0.2) == 0.2
    early = pd.DataFrame({"fov": [1, 2], "x_global_px": [924 / 0.18, 978 / 0.18], "y_global_px": [26290 / 0.18] * 2})
    assert pixel(early) == 0.18
    assert pixel(early.round(0)) == UM
    assert pixel(some_fovs("mm")) == UM
    assert pixel_of(None, um_per_unit=None).um == UM


def test_cells_that_the_metadata_lacks_are_dropped_and_counted(tmp_path: Path) -> None:
    write_cosmx(tmp_path)
    write_table(some_cells().iloc[[0, 1, 2, 5]], tmp_path / "lung_metadata_file.csv")
    _, raw = read(tmp_path)
    assert raw.spot_ids.tolist() == ["1_1", "1_2", "1_3", "2_3"]
    lost = some_counts().iloc[[5, 6]][GENES].to_numpy().sum()
    assert raw.dropped["not in the metadata"] == {"spots": 2, "counts": lost}
    assert raw.counts.sum() + lost + BACKGROUND == some_counts()[GENES].to_numpy().sum()


def test_floats_as_ids_line_ends_and_byte_order_marks(tmp_path: Path) -> None:
    write_cosmx(tmp_path)
    write_table(some_cells().astype({"fov": float, "cell_ID": float}), tmp_path / "lung_metadata_file.csv")
    for path in tmp_path.iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read(tmp_path)[1].counts.shape == (6, 4)


def _counts(change):
    return lambda folder: write_table(change(some_counts().astype(object)), folder / "lung_exprMat_file.csv")


def _cells(change, place: str = "global"):
    return lambda folder: write_table(change(some_cells(place).astype(object)), folder / "lung_metadata_file.csv")


def _fovs(change):
    def write(folder: Path) -> None:
        write_table(change(some_fovs().astype(object)), folder / "lung_fov_positions_file.csv")
        write_table(some_cells("local"), folder / "lung_metadata_file.csv")

    return write


def _no_fovs(folder: Path) -> None:
    (folder / "lung_fov_positions_file.csv").unlink()
    write_table(some_cells("local"), folder / "lung_metadata_file.csv")


def _set(name: str, value: object):
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[1, name] = value
        return frame

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_counts(_set("AATK", -1)), "negative"),
        (_counts(_set("AATK", 0.5)), "fractional"),
        (_counts(_set("AATK", "")), "missing"),
        (_counts(_set("cell_ID", 2)), "given twice"),
        (_counts(_set("cell_ID", 1.5)), "not a whole number"),
        (_counts(_set("cell_ID", "x")), "not a finite number"),
        (_counts(lambda t: t.drop(columns="fov")), "no column fov"),
        (_counts(lambda t: t.iloc[:0]), "no rows"),
        (_counts(lambda t: t.assign(cell_ID=0)), "given twice|no cell"),
        (_cells(_set("CenterX_global_px", "")), "not a finite number"),
        (_cells(_set("CenterX_global_px", "inf")), "not a finite number"),
        (_cells(_set("cell_ID", 1)), "given twice"),
        (_cells(_set("cell_ID", "99999999999999999999")), "not a whole number"),
        (_cells(lambda t: t.drop(columns="cell_ID")), "no column cell_ID"),
        (_cells(lambda t: t.drop(columns="CenterX_global_px")), "no columns of place"),
        (_cells(lambda t: t.assign(fov=t["fov"] + 7)), "no cell of the counts"),
        (_cells(lambda t: t.iloc[:2]), "4 of 6 cells of the counts are not"),
        (_no_fovs, "nothing tells where the FOVs are"),
        (_fovs(lambda t: t.iloc[:1]), "FOVs have no position"),
        (_fovs(lambda t: t.iloc[:0]), "FOVs have no position"),
        (_fovs(_set("fov", 1)), "not unique"),
        (_fovs(_set("fov", "1e300")), "not whole or not unique"),
        (_fovs(_set("x_global_px", "nan")), "not a finite number"),
        (_fovs(lambda t: t.drop(columns="x_global_px")), "no positions"),
        (_fovs(lambda t: t.drop(columns="fov")), "no column fov"),
        (lambda folder: (folder / "lung_metadata_file.csv").unlink(), "incomplete"),
        (lambda folder: write_cosmx(folder, prefix="b_"), "several such files"),
    ],
)
def test_problems(tmp_path: Path, change, message: str) -> None:
    change(write_cosmx(tmp_path))
    with pytest.raises(InputError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="target"), "misses a column"),
        (lambda t: t.drop(columns="x_global_px").drop(columns="x_local_px"), "no columns of place"),
        (lambda t: t.assign(x_global_px=np.nan), "missing or no number"),
        (lambda t: t.assign(fov=9).drop(columns="x_global_px"), "FOVs have no position"),
        (lambda t: t.iloc[:0], "no molecule is left"),
    ],
)
@pytest.mark.parametrize("end", [".csv", ".parquet"])
def test_molecule_problems(tmp_path: Path, change, message: str, end: str) -> None:
    write_table(change(some_molecules()), write_cosmx(tmp_path) / f"lung_tx_file{end}")
    with pytest.raises(InputError, match=message):
        read(tmp_path, bin_um=10)


def test_bins_without_molecules(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no molecule table"):
        read(write_cosmx(tmp_path), bin_um=10)


def test_fovs_do_not_overlay(tmp_path: Path) -> None:
    _, raw = read(write_cosmx(tmp_path, place="local"))
    assert raw.xy[3:, 0].min() > FOV_PX[2][0]


def test_real_totals(data_dir: Path) -> None:
    folder = data_dir / "cosmx_lung9_tiny"
    _, raw = read(folder)
    frame = pd.read_csv(folder / "lung_p9s1_exprMat_file.csv")
    assert raw.counts.sum() == frame.iloc[:, 2:].to_numpy().sum() == 7
    assert raw.counts.shape == (9, 8)
    assert raw.um_per_unit == 0.18
    assert read(folder, bin_um=10)[1].counts.sum() == 1


@pytest.mark.parametrize("sample", ["sample_1", "sample_2"])
def test_real_molecules(data_dir: Path, sample: str) -> None:
    folder = data_dir / "cosmx_lung9_transcripts" / sample
    frame = pd.read_csv(folder / "tx_file.csv")
    _, raw = read(folder)
    assert raw.um_per_unit == 0.18
    assert raw.counts.sum() == len(frame)
    x, y = (frame[name] * 0.18 // 10 for name in ("x_global_px", "y_global_px"))
    assert raw.counts.shape == (len(frame.groupby([x, y])), frame["target"].nunique())
    per_gene = dict(zip(raw.genes["name"], np.asarray(raw.counts.sum(axis=0)).ravel().tolist(), strict=True))
    assert per_gene == frame["target"].value_counts().to_dict()
