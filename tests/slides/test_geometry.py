"""Two witnesses of place: array indices and coordinates, in every layout that has both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bundles.h5ad import make_anndata, write_anndata
from bundles.lattices import disc, square_anndata, square_array, square_xy, turned
from bundles.visium import gene_rows, hex_array, hex_xy, some_counts, write_positions, write_tenx_h5, write_visium
from bundles.visium_hd import write_visium_hd

from stpatch.config import IngestSection
from stpatch.errors import ConfigError, InputError
from stpatch.expression.moran import neighbour_weights
from stpatch.slides.geometry import compare
from stpatch.slides.readers.registry import probe_source, read_source
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource


def read(path: Path, options: dict[str, Any] | None = None, **source: Any) -> tuple[Probe, RawSlide]:
    """Probe and read, as check and build do; what the probe says of places must be what is read."""
    slide = SlideSource(slide_id="s", path=path, **source)
    probe, raw = read_source(slide, IngestSection.model_validate(options or {}))
    assert probe.geometry in ("", raw.geometry)
    if probe.geometry:
        assert probe.um_per_unit == raw.um_per_unit
        assert set(probe.notes) <= {*raw.notes, *(note for note in probe.notes if "samplesheet" in note)}
    return probe, raw


def refused(path: Path, message: str, options: dict[str, Any] | None = None, **source: Any) -> str:
    """Return what the probe, and with it check, refuses a slide with."""
    with pytest.raises(InputError, match=message) as caught:
        probe_source(SlideSource(slide_id="s", path=path, **source), IngestSection.model_validate(options or {}))
    return str(caught.value)


def noted(raw: RawSlide, text: str) -> bool:
    return any(text in note for note in raw.notes)


# --- the comparison itself

SQUARE = square_array(30, 25)
HEX = hex_array(30, 25)


def swapped(xy: np.ndarray, one: int, other: int) -> np.ndarray:
    xy = xy.copy()
    xy[[one, other]] = xy[[other, one]]
    return xy


def bent(xy: np.ndarray) -> np.ndarray:
    return xy + 0.2 * np.ptp(xy, axis=0) * np.sin(2 * xy / np.ptp(xy, axis=0))


WITNESSES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "as it is": (lambda xy: xy, "agree"),
    "moved and scaled": (lambda xy: xy * 7.3 - 1e4, "agree"),
    "turned a little": (lambda xy: turned(xy, 12), "agree"),
    "jittered": (lambda xy: xy + np.random.default_rng(0).normal(0, 0.1 * 30, xy.shape), "agree"),
    "rounded": (lambda xy: np.rint(xy / 8), "agree"),
    "axes of two units": (lambda xy: xy * [1, 1.4], "agree"),
    "bent": (bent, "bent"),
    "rows and columns exchanged": (lambda xy: xy[:, ::-1], "transposed"),
    "turned by a quarter": (lambda xy: turned(xy, 90), "turned"),
    "turned by a half": (lambda xy: -xy, "reversed"),
    "y points up": (lambda xy: xy * [1, -1], "mirrored"),
    "x runs backwards": (lambda xy: xy * [-1, 1], "mirrored"),
    "shuffled": (lambda xy: xy[np.random.default_rng(0).permutation(len(xy))], "disagree"),
    "a tenth shuffled": (lambda xy: np.vstack([xy[:75][::-1], xy[75:]]), "disagree"),
    "two far spots exchanged": (lambda xy: swapped(xy, 5, 700), "disagree"),
    "two neighbours exchanged": (lambda xy: swapped(xy, 5, 6), "disagree"),
    "off by one row of the table": (lambda xy: np.roll(xy, 1, axis=0), "disagree"),
    "all zero": (lambda xy: xy * 0, "disagree"),
    "blocks exchanged": (lambda xy: np.vstack([xy[100:200], xy[:100], xy[200:]]), "disagree"),
    "an empty row not counted": (lambda xy: xy + np.where(xy[:, 1:] > np.median(xy[:, 1]), [0, 30.0], 0), "disagree"),
}


@pytest.mark.parametrize("case", WITNESSES)
def test_square_arrays_against_coordinates(case: str) -> None:
    change, verdict = WITNESSES[case]
    found = compare(SQUARE, change(square_xy(SQUARE)), hexagonal=False)
    assert found.verdict == verdict
    assert bool(len(found.rows)) == (verdict == "disagree")


@pytest.mark.parametrize("case", [case for case in WITNESSES if case != "an empty row not counted"])
def test_hexagonal_arrays_against_coordinates(case: str) -> None:
    change, verdict = WITNESSES[case]
    assert compare(HEX, change(hex_xy(HEX) * 0.15), hexagonal=True).verdict == verdict


def test_the_rows_that_disagree_are_named() -> None:
    found = compare(SQUARE, swapped(square_xy(SQUARE), 5, 700), hexagonal=False)
    assert found.rows.tolist() == [5, 700]


def test_a_large_array_is_looked_at_in_blocks() -> None:
    array = square_array(900, 600)
    xy = square_xy(array)
    assert compare(array, xy, hexagonal=False).verdict == "agree"
    shuffled = xy[np.random.default_rng(0).permutation(len(xy))]
    assert compare(array, shuffled, hexagonal=False).verdict == "disagree"


# --- a file whose coordinates are of other spots


def shuffled_h5ad(tmp_path: Path) -> Path:
    slide = make_anndata(rows=12, columns=12)
    slide.obsm["spatial"] = np.asarray(slide.obsm["spatial"])[np.random.default_rng(0).permutation(144)]
    return write_anndata(tmp_path / "a.h5ad", slide)


def shuffled_square_h5ad(tmp_path: Path) -> Path:
    slide = square_anndata(12, 12)
    slide.obsm["spatial"] = np.asarray(slide.obsm["spatial"])[np.random.default_rng(0).permutation(144)]
    return write_anndata(tmp_path / "a.zarr", slide, zarr_format=2)


def two_exchanged_h5ad(tmp_path: Path) -> Path:
    slide = make_anndata(rows=12, columns=12)
    slide.obsm["spatial"] = swapped(np.asarray(slide.obsm["spatial"]), 3, 90)
    return write_anndata(tmp_path / "a.h5ad", slide)


def shuffled_visium(tmp_path: Path, *, layout: str = "v2") -> Path:
    array = hex_array(12, 12)
    folder = write_visium(tmp_path / "outs", rows=12, columns=12, layout=layout)
    table = next((folder / "spatial").glob("tissue_positions*"))
    frame = pd.read_parquet(table) if layout == "parquet" else pd.read_csv(table)
    xy = hex_xy(array)[np.random.default_rng(0).permutation(144)]
    frame["pxl_row_in_fullres"], frame["pxl_col_in_fullres"] = xy[:, 1], xy[:, 0]
    frame.to_parquet(table) if layout == "parquet" else frame.to_csv(table, index=False)
    return folder


def shuffled_parquet(tmp_path: Path) -> Path:
    return shuffled_visium(tmp_path, layout="parquet")


def shuffled_spatialdata(tmp_path: Path) -> Path:
    pytest.importorskip("spatialdata")
    import zarr
    from bundles.spatialdata import write_spatialdata

    path = write_spatialdata(tmp_path / "s.zarr", visium=True)

    group = zarr.open_group(path / "tables" / "table")
    xy = group["obsm/spatial"][:]  # type: ignore[index]
    group["obsm/spatial"][:] = xy[np.random.default_rng(0).permutation(len(xy))]  # type: ignore[index]
    return path


@pytest.mark.parametrize(
    "write",
    [
        shuffled_h5ad,
        shuffled_square_h5ad,
        two_exchanged_h5ad,
        shuffled_visium,
        shuffled_parquet,
        shuffled_spatialdata,
    ],
)
def test_coordinates_of_other_spots_are_refused_and_a_key_chooses(
    tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    path = write(tmp_path)
    text = refused(path, "array indices and coordinates disagree")
    assert "ingest.places" in text
    assert "row " in text
    _, by_array = read(path, {"places": "array"})
    assert by_array.geometry in ("hex", "square")
    _, by_coordinates = read(path, metadata={"places": "coordinates"})
    assert by_coordinates.geometry == by_array.geometry
    assert noted(by_coordinates, "array indices are from the coordinates")
    assert by_coordinates.array is not None
    assert by_array.array is not None
    assert (by_coordinates.array != by_array.array).any()


def test_a_table_with_array_indices_is_held_to_them(tmp_path: Path) -> None:
    array = square_array(6, 6)
    xy = square_xy(array)[np.random.default_rng(0).permutation(36)]
    counts = pd.DataFrame({"A": range(1, 37)}, index=[f"c{i}" for i in range(36)])
    counts.to_csv(tmp_path / "counts.csv")
    places = pd.DataFrame(xy, index=counts.index, columns=["x", "y"])
    places["array_row"], places["array_col"] = array.T
    places.to_csv(tmp_path / "places.csv")
    refused(tmp_path / "counts.csv", "disagree", {"platform": "table"}, coordinates=tmp_path / "places.csv")


def test_bins_of_visium_hd_are_held_to_their_barcodes(tmp_path: Path) -> None:
    folder = write_visium_hd(tmp_path)
    table = next(folder.rglob("square_002um/spatial/tissue_positions.parquet"))
    frame = pd.read_parquet(table)
    columns = ["pxl_row_in_fullres", "pxl_col_in_fullres"]
    read(table.parent.parent)
    frame[columns] = frame[columns].to_numpy()[np.random.default_rng(0).permutation(len(frame))]
    frame.to_parquet(table)
    text = refused(table.parent.parent, "array indices and coordinates disagree")
    assert "tissue_positions.parquet" in text


# --- array indices that only number what is left


def in_sequence(array: np.ndarray) -> np.ndarray:
    return np.stack(np.divmod(np.arange(len(array)), 20), axis=1)


def empty_lines_dropped(array: np.ndarray) -> np.ndarray:
    return np.column_stack([np.unique(column, return_inverse=True)[1] for column in array.T])


def within_each_row(array: np.ndarray) -> np.ndarray:
    return np.column_stack([array[:, 0], pd.Series(array[:, 0]).groupby(array[:, 0]).cumcount()])


def in_sequence_from_one(array: np.ndarray) -> np.ndarray:
    return in_sequence(array) + 1


def within_each_row_and_rows_dropped(array: np.ndarray) -> np.ndarray:
    return empty_lines_dropped(within_each_row(array))


@pytest.mark.parametrize(
    "renumber",
    [in_sequence, empty_lines_dropped, within_each_row, in_sequence_from_one, within_each_row_and_rows_dropped],
)
def test_indices_without_the_empty_places_give_way_to_the_coordinates(
    tmp_path: Path, renumber: Callable[[np.ndarray], np.ndarray]
) -> None:
    full = square_array(24, 20)
    keep = disc(full) & (full[:, 0] % 8 != 5) & (full[:, 1] != 6)
    slide = square_anndata(24, 20, keep=keep)
    numbers = renumber(full[keep])
    slide.obs["array_row"], slide.obs["array_col"] = numbers[:, 0], numbers[:, 1]
    probe, raw = read(write_anndata(tmp_path / "a.h5ad", slide))
    assert raw.geometry == "square"
    assert raw.array is not None
    np.testing.assert_array_equal(raw.array, full[keep] - full[keep].min(axis=0))
    assert noted(raw, "numbers in order without the empty places")
    assert probe.notes


# --- rows and columns taken for each other


@pytest.mark.parametrize("names", [("array_row", "array_col"), ("array_col", "array_row")])
def test_a_transposed_square_array_is_turned_back(tmp_path: Path, names: tuple[str, str]) -> None:
    slide = square_anndata(8, 12)
    array = square_array(8, 12)
    slide.obs[names[0]], slide.obs[names[1]] = array[:, 0], array[:, 1]
    _, raw = read(write_anndata(tmp_path / "a.h5ad", slide))
    np.testing.assert_array_equal(raw.array, array)
    assert noted(raw, "taken for each other") == (names[0] == "array_col")


def test_a_rounding_collision_is_a_note_and_many_are_sections(tmp_path: Path) -> None:
    slide = square_anndata(10, 12)
    xy = np.asarray(slide.obsm["spatial"])
    xy[7] += [14, 0]
    slide.obs.loc[slide.obs_names[7], "array_col"] += 1
    _, raw = read(write_anndata(tmp_path / "a.h5ad", slide))
    assert noted(raw, "1 spots share the array place of another")
    assert noted(raw, "grid.collisions")
    slide = make_anndata(rows=6, columns=10)
    slide.obs.loc[slide.obs_names[7], "array_col"] += 2
    refused(write_anndata(tmp_path / "b.h5ad", slide), "two spots have one place on the array")


# --- coordinates by name


def table_of(names: tuple[str, ...], xy: np.ndarray, index: Any) -> pd.DataFrame:
    return pd.DataFrame(
        {name: xy[:, 1] if "y" in name.lower() or "row" in name.lower() else xy[:, 0] for name in names}, index=index
    )


XY_PAIRS = [
    ("x", "y"), ("y", "x"), ("Y", "X"), ("pxl_row_in_fullres", "pxl_col_in_fullres"), ("imagerow", "imagecol"),
    ("yaxis", "xaxis"), ("y_centroid", "x_centroid"), ("row", "col"), ("coord_y", "coord_x"),
    ("pixel_row", "pixel_col"),
]  # fmt: skip


@pytest.mark.parametrize("names", XY_PAIRS)
def test_columns_of_obsm_are_taken_by_name(tmp_path: Path, names: tuple[str, str]) -> None:
    slide = make_anndata(rows=5, columns=7, visium=False)
    xy = np.asarray(slide.obsm["spatial"])
    slide.obsm["spatial"] = table_of(names, xy, slide.obs_names)
    _, raw = read(write_anndata(tmp_path / "a.h5ad", slide))
    np.testing.assert_array_equal(raw.xy, xy)


@pytest.mark.parametrize("names", [pair for pair in XY_PAIRS if pair != ("row", "col")])
def test_columns_of_obs_are_taken_by_name(tmp_path: Path, names: tuple[str, str]) -> None:
    slide = make_anndata(rows=5, columns=7, visium=False)
    xy = np.asarray(slide.obsm["spatial"])
    del slide.obsm["spatial"]
    slide.obs = slide.obs.join(table_of(names, xy, slide.obs_names))
    _, raw = read(write_anndata(tmp_path / "a.h5ad", slide))
    np.testing.assert_array_equal(raw.xy, xy)


def test_columns_without_a_meaning_are_taken_in_order_and_noted(tmp_path: Path) -> None:
    slide = make_anndata(visium=False)
    xy = np.asarray(slide.obsm["spatial"])
    slide.obsm["spatial"] = pd.DataFrame(xy, index=slide.obs_names, columns=["dim one", "dim two"])
    _, raw = read(write_anndata(tmp_path / "a.h5ad", slide))
    np.testing.assert_array_equal(raw.xy, xy)
    assert noted(raw, "dim one, dim two of obsm/spatial are taken as x and y in this order")


def test_obsm_that_holds_rows_first_gives_way_to_named_columns(tmp_path: Path) -> None:
    slide = make_anndata()
    xy = np.asarray(slide.obsm["spatial"])
    slide.obs["pxl_col_in_fullres"], slide.obs["pxl_row_in_fullres"] = xy.T
    slide.obsm["spatial"] = xy[:, ::-1].copy()
    _, raw = read(write_anndata(tmp_path / "a.h5ad", slide))
    np.testing.assert_array_equal(raw.xy, xy)
    assert noted(raw, "rows before columns")


@pytest.mark.parametrize("sound", [True, False])
def test_seurats_columns(tmp_path: Path, *, sound: bool) -> None:
    slide = make_anndata(rows=6, columns=8)
    xy = np.asarray(slide.obsm["spatial"])
    del slide.obsm["spatial"]
    slide.obs["imagerow"], slide.obs["imagecol"] = xy[:, 1], xy[:, 0]
    slide.obs["tissue"] = slide.obs.pop("in_tissue")
    slide.obs["row"], slide.obs["col"] = slide.obs.pop("array_row"), slide.obs.pop("array_col")
    if not sound:
        slide.obs["row"] = slide.obs["row"].to_numpy()[::-1] % 3
    _, raw = read(write_anndata(tmp_path / "a.h5ad", slide))
    np.testing.assert_array_equal(raw.xy, xy)
    assert raw.geometry == "hex"
    np.testing.assert_array_equal(raw.array, hex_array(6, 8))
    assert raw.spots["in_tissue"].all()
    assert noted(raw, "from obs row and col" if sound else "row and col do not follow the coordinates")


def test_without_coordinates_the_columns_are_listed(tmp_path: Path) -> None:
    slide = make_anndata(visium=False)
    del slide.obsm["spatial"]
    slide.obs["somewhere"] = 1.0
    assert "region, somewhere" in refused(write_anndata(tmp_path / "a.h5ad", slide), "has no coordinates")


def test_coordinates_that_are_the_array_indices_have_no_scale(tmp_path: Path) -> None:
    slide = make_anndata(rows=6, columns=8)
    array = hex_array(6, 8)
    slide.obsm["spatial"] = array[:, ::-1].astype(np.float64)
    _, raw = read(write_anndata(tmp_path / "a.h5ad", slide))
    assert (raw.geometry, raw.um_per_unit) == ("hex", None)
    assert noted(raw, "the coordinates are the array indices")


# --- a square array in Space Ranger's layout


def write_square_visium(folder: Path, change: Callable[[np.ndarray], np.ndarray], *, n: int = 12) -> Path:
    array = square_array(n, n)
    names = ["".join("ACGT"[i >> 2 * k & 3] for k in range(16)) for i in range(len(array))]
    folder.mkdir()
    write_tenx_h5(
        folder / "filtered_feature_bc_matrix.h5", some_counts(len(array), 6), barcodes=names, genes=gene_rows(6)
    )
    write_positions(
        folder / "spatial",
        barcodes=names,
        array=array,
        xy=change(square_xy(array)),
        in_tissue=np.ones(len(array), bool),
    )
    return folder


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda xy: xy, True),
        (lambda xy: xy * [1, -1], True),
        (lambda xy: xy + np.random.default_rng(0).normal(0, 2, xy.shape), True),
        (lambda xy: turned(xy, 3), True),
        (lambda xy: xy[:, ::-1], False),
    ],
    ids=["as it is", "y up", "jitter", "turned", "transposed"],
)
def test_a_square_array_in_space_rangers_layout(
    tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], *, same: bool
) -> None:
    path = write_square_visium(tmp_path / "outs", change)
    probe, raw = read(path)
    assert (raw.geometry, raw.um_per_unit, probe.pitch_um) == ("square", None, None)
    assert noted(raw, "square lattice, not on Visium's")
    assert noted(raw, "nothing tells the micrometres")
    np.testing.assert_array_equal(raw.array, square_array(12, 12) if same else square_array(12, 12)[:, ::-1])
    probe, raw = read(path, metadata={"pitch_um": "50"})
    assert probe.pitch_um == pytest.approx(50)
    assert raw.um_per_unit == pytest.approx(50 / 30, rel=0.05)
    assert noted(raw, "pitch_um 50 as given")


def test_a_square_array_with_other_spots_coordinates_is_refused(tmp_path: Path) -> None:
    path = write_square_visium(tmp_path / "outs", lambda xy: swapped(xy, 3, 90))
    refused(path, "disagree")


# --- Moran's neighbours


def test_a_square_array_has_four_neighbours_with_indices_or_without(tmp_path: Path) -> None:
    slide = square_anndata(6, 6)
    expected = None
    for name in ("with", "without"):
        if name == "without":
            slide.obs = slide.obs.drop(columns=["array_row", "array_col"])
        raw = read(write_anndata(tmp_path / f"{name}.h5ad", slide))[1]
        weights = neighbour_weights(raw)  # type: ignore[arg-type]
        assert np.diff(weights.indptr).max() == 4
        assert expected is None or (weights != expected).nnz == 0
        expected = weights


# --- scales


def test_scales_of_one_slide_come_from_its_row(tmp_path: Path) -> None:
    path = write_anndata(tmp_path / "a.h5ad", square_anndata(8, 8))
    assert read(path)[1].um_per_unit is None
    assert read(path, metadata={"pitch_um": "15"})[1].um_per_unit == pytest.approx(0.5)
    assert read(path, {"pitch_um": 99}, metadata={"pitch_um": "15"})[1].um_per_unit == pytest.approx(0.5)
    assert read(path, metadata={"um_per_unit": "0.3"})[1].um_per_unit == 0.3
    for column, cell in (("um_per_unit", "half"), ("pitch_um", "-1"), ("places", "both"), ("pitch_um", "nan")):
        with pytest.raises(ConfigError, match=f"samplesheet column {column} is not valid"):
            read(path, metadata={column: cell})


def test_a_given_scale_that_contradicts_the_array_is_told(tmp_path: Path) -> None:
    path = write_visium(tmp_path)
    assert not noted(read(path)[1], "is given")
    assert noted(read(path, metadata={"um_per_unit": "0.65"})[1], "um_per_unit 0.65 is given; the files say 0.5")


@pytest.mark.parametrize(
    ("names", "um", "text"),
    [
        (["1x1", "1x2", "2x1", "2x2"], 200.0, "200 um between spots are assumed"),
        (["50x50", "50x49", "49x50", "1x1"], None, "of no array of 200 um"),
        (["0x96", "1x96", "1x95", "0x95"], None, "of no array of 200 um"),
    ],
)
@pytest.mark.parametrize("in_rows", [True, False])
def test_spot_names_have_a_scale_only_where_it_is_noted(
    tmp_path: Path, names: list[str], um: float | None, text: str, *, in_rows: bool
) -> None:
    table = pd.DataFrame({"A": [1, 2, 3, 4], "B": [0, 1, 0, 2], "C": [1, 1, 1, 1]}, index=names)
    (table if in_rows else table.T).to_csv(tmp_path / "s.tsv", sep="\t")
    probe, raw = read(tmp_path / "s.tsv")
    assert (probe.platform, raw.um_per_unit) == ("st", um)
    assert noted(raw, text)
    assert read(tmp_path / "s.tsv", metadata={"pitch_um": "25"})[1].um_per_unit == pytest.approx(25)


@pytest.mark.parametrize("whole", [False, True])
def test_bead_names_that_are_places_of_no_array_are_coordinates(tmp_path: Path, *, whole: bool) -> None:
    xy = np.random.default_rng(0).uniform(500, 4300, (200, 2)).round(0 if whole else 2)
    names = [f"{x:g}x{y:g}" for x, y in xy]
    pd.DataFrame({"A": range(1, 201), "B": 1}, index=names).to_csv(tmp_path / "beads.tsv", sep="\t")
    _, raw = read(tmp_path / "beads.tsv")
    assert (raw.geometry, raw.array, raw.um_per_unit) == ("irregular", None, None)
    np.testing.assert_allclose(raw.xy, xy)
    assert noted(raw, "not those of an array")
    assert read(tmp_path / "beads.tsv", metadata={"um_per_unit": "0.65"})[1].um_per_unit == 0.65


def write_st(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    array = square_array(8, 9) + 3
    places = array[:, ::-1]
    names = [f"{x}x{y}" for x, y in places]
    pd.DataFrame({"A": range(1, 73), "B": 1}, index=names).to_csv(folder / "S1.tsv", sep="\t")
    table = pd.DataFrame(places, columns=["x", "y"])
    table["pixel_x"], table["pixel_y"] = change(places * 270.0).T
    table.to_csv(folder / "S1_selection.tsv", sep="\t", index=False)
    return folder / "S1.tsv"


@pytest.mark.parametrize(
    "change",
    [
        lambda xy: xy[np.random.default_rng(0).permutation(len(xy))],
        lambda xy: np.vstack([xy[:20][::-1], xy[20:]]),
        lambda xy: swapped(xy, 2, 60),
        lambda xy: np.roll(xy, 1, axis=0),
    ],
    ids=["shuffled", "partly", "two exchanged", "off by one row"],
)
def test_pixels_of_other_spots_of_an_st_array_are_refused(
    tmp_path: Path, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    path = write_st(tmp_path, change)
    refused(path, "disagree|do not follow the array places")


def test_sound_pixels_of_an_st_array_are_read(tmp_path: Path) -> None:
    _, raw = read(write_st(tmp_path, lambda xy: xy + np.random.default_rng(0).normal(0, 30, xy.shape)))
    assert raw.geometry == "square"
    assert not noted(raw, "transposed")
    _, raw = read(write_st(tmp_path, lambda xy: xy[:, ::-1]))
    assert noted(raw, "transposed against x and y")


def test_adjusted_names_of_an_array_stay_an_array(tmp_path: Path) -> None:
    array = square_array(12, 10)
    places = array[:, ::-1] + 5 + np.random.default_rng(0).normal(0, 0.13, array.shape)
    names = [f"{x:.3f}x{y:.3f}" for x, y in places]
    pd.DataFrame({"A": range(1, 121), "B": 1}, index=names).to_csv(tmp_path / "s.tsv", sep="\t")
    _, raw = read(tmp_path / "s.tsv")
    assert raw.geometry == "square"
    assert raw.array is not None
    assert raw.array.max() <= 17
