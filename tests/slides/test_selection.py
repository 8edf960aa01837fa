"""Sections joined in one file: found and refused, and picked by column and value, in every layout with several."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from bundles.h5ad import make_anndata, write_anndata
from bundles.lattices import joined, square_anndata, square_array, square_xy
from bundles.visium import (
    barcode_names,
    gene_rows,
    hex_array,
    hex_xy,
    some_counts,
    write_mex,
    write_positions,
    write_tenx_h5,
)

from stpatch.config import IngestSection
from stpatch.errors import ConfigError, InputError
from stpatch.slides.formats.places import nearest_distance
from stpatch.slides.readers.registry import probe_source, read_source
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource


def source(path: Path, *, coordinates: Path | None = None, **metadata: str) -> SlideSource:
    return SlideSource(slide_id="s", path=path, coordinates=coordinates, metadata=metadata)


def read(slide: SlideSource, **options: Any) -> tuple[Probe, RawSlide]:
    probe, raw = read_source(slide, IngestSection.model_validate(options))
    assert probe.n_spots in (None, len(raw.spot_ids))
    return probe, raw


def refused(slide: SlideSource, message: str, **options: Any) -> str:
    with pytest.raises(InputError, match=message) as caught:
        probe_source(slide, IngestSection.model_validate(options))
    return str(caught.value)


def cells(*, n: int = 150, seed: int) -> Any:
    """Return an AnnData of cells that lie anywhere."""
    import anndata

    generator = np.random.default_rng(seed)
    names = [f"cell{seed}_{i}" for i in range(n)]
    slide = anndata.AnnData(
        X=some_counts(n, 6, seed=seed),
        obs=pd.DataFrame(index=names),
        var=pd.DataFrame(index=[f"G{i}" for i in range(6)]),
    )
    slide.obsm["spatial"] = generator.uniform(0, 1000, (n, 2))
    return slide


def two_hex(*, visium: bool = True, **options: Any) -> Any:
    slides = [make_anndata(rows=8, columns=8, visium=visium, seed=seed) for seed in (0, 1)]
    for slide in slides:
        del slide.obs["region"]
    return joined(*slides, **options)


def of_place(number: int) -> Any:
    return cells(seed=number)


COLUMNS = [
    "library_id", "Library_Key", "sample", "section", "slice", "batch", "orig.ident", "donor_id", "puck",
    "capture_area",
]  # fmt: skip


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("kind", ["cells", "hex", "hex without indices"])
def test_overlaid_sections_are_refused_by_their_column_and_picked_by_it(tmp_path: Path, column: str, kind: str) -> None:
    whole = (
        joined(cells(seed=1), cells(seed=2), column=column)
        if kind == "cells"
        else two_hex(visium=kind == "hex", column=column)
    )
    path = write_anndata(tmp_path / "a.h5ad", whole)
    n = whole.n_obs // 2
    text = refused(source(path), "several sections")
    assert f"{column}: A ({n} spots), B ({n} spots)" in text
    assert f"ingest.select: {{{column}: A}}" in text
    for options, metadata in (
        ({"select": {column: "B"}}, {}),
        ({}, {f"select.{column}": "B"}),
        ({"select": {column: "A"}}, {f"select.{column}": "B"}),
        ({}, {"slide_column": column, "slide_value": "B"}),
    ):
        probe, raw = read(source(path, **metadata), **options)
        assert probe.n_spots == n
        assert (raw.counts != whole.X[n:]).nnz == 0
        assert raw.spot_ids.tolist() == whole.obs_names[n:].tolist()
        assert any(f"{n} of {2 * n} rows have {column} = B" in note for note in probe.notes)
    assert "values A, B" in refused(source(path, **{f"select.{column}": "C"}), "no row has")
    assert "columns" in refused(source(path), "there is no column 'other'", select={"other": "A"})


def partly(slides: list[Any]) -> Any:
    return joined(*slides, shift=600.0)


def three(slides: list[Any]) -> Any:
    return joined(*slides, cells(seed=9))


def a_small_one(slides: list[Any]) -> Any:
    return joined(slides[0], cells(n=15, seed=9))


def one_without_a_name(slides: list[Any]) -> Any:
    whole = joined(*slides)
    whole.obs["library_id"] = whole.obs["library_id"].cat.remove_categories("B")
    return whole


def numbers(slides: list[Any]) -> Any:
    whole = joined(*slides, values=["1", "2"])
    whole.obs["library_id"] = whole.obs["library_id"].astype(float)
    return whole


@pytest.mark.parametrize("join", [partly, three, a_small_one, one_without_a_name, numbers])
def test_sections_that_overlap_in_other_ways(tmp_path: Path, join: Callable[[list[Any]], Any]) -> None:
    path = write_anndata(tmp_path / "a.h5ad", join([cells(seed=1), cells(seed=2)]))
    refused(source(path), "several sections lie over one another")
    value = "1" if join is numbers else "A"
    assert len(read(source(path, library_id=value))[1].spot_ids) == 150


def side_by_side(tmp_path: Path) -> Path:
    return write_anndata(tmp_path / "a.h5ad", joined(cells(seed=1), cells(seed=2), shift=1100.0))


def regions_of_one_section(tmp_path: Path) -> Path:
    slide = cells(seed=1, n=300)
    slide.obs["region"] = np.where(np.arange(300) % 3, "tumour", "stroma")
    slide.obs["cell_type"] = np.where(np.arange(300) % 2, "T", "B")
    return write_anndata(tmp_path / "a.h5ad", slide)


def fields_that_tile(tmp_path: Path) -> Path:
    slide = cells(seed=1, n=300)
    xy = np.asarray(slide.obsm["spatial"])
    slide.obs["fov"] = (xy[:, 0] // 100 * 10 + xy[:, 1] // 100).astype(int)
    return write_anndata(tmp_path / "a.h5ad", slide)


def one_value(tmp_path: Path) -> Path:
    slide = cells(seed=1)
    slide.obs["library_id"] = "A"
    return write_anndata(tmp_path / "a.h5ad", slide)


def a_name_for_each_cell(tmp_path: Path) -> Path:
    slide = cells(seed=1)
    slide.obs["sample"] = slide.obs_names
    return write_anndata(tmp_path / "a.h5ad", slide)


def rounded(tmp_path: Path) -> Path:
    slide = cells(seed=1)
    slide.obsm["spatial"] = np.rint(slide.obsm["spatial"] / 30)
    return write_anndata(tmp_path / "a.h5ad", slide)


def two_cells_in_one_place(tmp_path: Path) -> Path:
    slide = cells(seed=1)
    slide.obsm["spatial"][3] = slide.obsm["spatial"][4]
    return write_anndata(tmp_path / "a.h5ad", slide)


@pytest.mark.parametrize(
    "write",
    [
        side_by_side,
        regions_of_one_section,
        fields_that_tile,
        one_value,
        a_name_for_each_cell,
        rounded,
        two_cells_in_one_place,
    ],
)
def test_one_picture_is_read_as_one(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path)
    probe, raw = read(source(path))
    assert len(raw.spot_ids) in (150, 300)
    assert any("side by side" in note for note in probe.notes) == (write is side_by_side)
    assert any("have the coordinates of another" in note for note in probe.notes) == (write is rounded)


@pytest.mark.parametrize("shift", [(13.0, 0.0), (31.0, 22.0), (0.0, 40.0)])
@pytest.mark.parametrize("column", ["chip", "roi", "grp", "tissue_section"])
def test_lattices_that_lie_between_one_another(tmp_path: Path, shift: tuple[float, float], column: str) -> None:
    whole = two_hex(visium=False, column=column)
    whole.obsm["spatial"][64:] += np.array(shift) * nearest_distance(whole.obsm["spatial"][:64])[0] / 100
    path = write_anndata(tmp_path / "a.h5ad", whole)
    assert f"{column}: A (64 spots), B (64 spots)" in refused(source(path), "several lattices lie over one another")
    _, raw = read(source(path, **{f"select.{column}": "B"}))
    assert (raw.counts != whole.X[64:]).nnz == 0


@pytest.mark.parametrize("by", ["row", "column", "halves", "random", "checker"])
def test_columns_of_one_lattice_are_no_sections(tmp_path: Path, by: str) -> None:
    slide = make_anndata(rows=12, columns=12, visium=False)
    row, column = np.divmod(np.arange(len(slide)), 12)
    slide.obs["tissue"] = {
        "row": row % 2,
        "column": column % 2,
        "halves": row // 6,
        "random": np.random.default_rng(1).integers(0, 3, len(slide)),
        "checker": (row + column) % 2,
    }[by]
    for square in (False, True):
        if square:
            slide.obsm["spatial"] = np.column_stack([column, row]) * 50.0
        probe, _ = read(source(write_anndata(tmp_path / f"{square}.h5ad", slide)))
        assert probe.geometry == ("square" if square else "hex")


@pytest.mark.parametrize("tells", ["nothing", "suffix", "an unknown column", "region"])
def test_spots_of_one_place_are_sections_whatever_the_column_is_called(tmp_path: Path, tells: str) -> None:
    whole = two_hex(column={"an unknown column": "grp", "region": "region"}.get(tells))
    whole.obs_names = [name.split("-")[0] + f"-1-{i // 64}" for i, name in enumerate(whole.obs_names)]
    if tells == "nothing":
        whole.obs_names = [f"spot{i}" for i in range(128)]
    path = write_anndata(tmp_path / "a.h5ad", whole)
    text = refused(source(path), "spots share places")
    named = {"suffix": "barcode_suffix", "an unknown column": "grp", "region": "region"}.get(tells)
    if named is None:
        assert "no column tells them apart" in text
        return
    if named != "region":
        assert "barcode_suffix" in text or named in text
    value = {"barcode_suffix": "1-1", "grp": "B", "region": "B"}[named]
    _, raw = read(source(path, **{f"select.{named}": value}))
    assert (raw.counts != whole.X[64:]).nnz == 0
    assert raw.geometry == "hex"


@pytest.mark.parametrize("column", ["library_id", "donor_id", None])
def test_a_file_that_says_it_joins_sections_is_refused(tmp_path: Path, column: str | None) -> None:
    whole = joined(cells(seed=1), cells(seed=2), column=column, shift=1100.0)
    whole.uns["spatial"] = {"is_single": False}
    path = write_anndata(tmp_path / "a.h5ad", whole)
    text = refused(source(path), "is_single is false")
    assert (column or "no column") in text
    if column is not None:
        assert len(read(source(path), select={column: "A"})[1].spot_ids) == 150
        assert len(read(source(path), select={column: ["A", "B"]})[1].spot_ids) == 300


def test_the_scale_is_the_chosen_librarys(tmp_path: Path) -> None:
    whole = joined(square_anndata(6, 6), square_anndata(6, 6, seed=1))
    whole.uns["spatial"] = {name: {"scalefactors": {"microns_per_pixel": um}} for name, um in (("A", 0.25), ("B", 0.5))}
    path = write_anndata(tmp_path / "a.h5ad", whole)
    assert "libraries A, B" in refused(source(path), "several sections")
    assert [read(source(path, library_id=name))[1].um_per_unit for name in "AB"] == [0.25, 0.5]


def test_known_columns_without_effect_are_told(tmp_path: Path) -> None:
    path = write_anndata(tmp_path / "a.h5ad", cells(seed=1))
    probe, _ = read(source(path, coordinates=tmp_path / "x.csv", region="cortex", library_id="L1", genes_in="rows"))
    text = " ".join(probe.notes)
    for name in ("coordinates", "region", "library_id", "genes_in"):
        assert f"samplesheet column {name} " in text
    assert read(source(path, tissue="brain"))[0].notes == ()


def test_other_platforms_pick_no_rows(tmp_path: Path) -> None:
    from bundles.xenium import write_xenium

    folder = write_xenium(tmp_path)
    assert any("library_id has no effect" in note for note in read(source(folder, library_id="L1"))[0].notes)
    with pytest.raises(ConfigError, match="rows of a xenium slide cannot be picked"):
        read(source(folder, **{"select.fov": "1"}))


# --- SpatialData


def test_regions_and_rows_of_a_spatialdata_table(tmp_path: Path) -> None:
    pytest.importorskip("spatialdata")
    from bundles.spatialdata import write_spatialdata

    path = write_spatialdata(tmp_path / "s.zarr")
    _, raw = read(source(path, **{"select.region": "tumour"}))
    assert len(raw.spot_ids) == 13
    refused(source(path, **{"select.region": "none"}), "no row has region = none")


# --- tables


@pytest.mark.parametrize("column", ["sample", "library_id", "grp"])
def test_a_table_of_two_sections(tmp_path: Path, column: str) -> None:
    xy = np.vstack([square_xy(square_array(6, 6))] * 2)
    names = [f"c{i}" for i in range(72)]
    counts = pd.DataFrame({"A": range(1, 73), "B": 1}, index=names)
    counts.to_csv(tmp_path / "counts.csv")
    places = pd.DataFrame(xy, index=names, columns=["x", "y"])
    places[column] = ["one"] * 36 + ["two"] * 36
    places.to_csv(tmp_path / "places.csv")
    slide = source(tmp_path / "counts.csv", coordinates=tmp_path / "places.csv")
    text = refused(slide, "sections", platform="table")
    assert f"{column}: one (36 spots), two (36 spots)" in text
    _, raw = read(
        source(tmp_path / "counts.csv", coordinates=tmp_path / "places.csv", **{f"select.{column}": "two"}),
        platform="table",
    )
    assert raw.counts.toarray()[:, 0].tolist() == list(range(37, 73))
    assert raw.geometry == "square"


def test_rows_of_a_table_of_molecules_cannot_be_picked(tmp_path: Path) -> None:
    path = tmp_path / "molecules.csv"
    path.write_text("gene,x,y,section\n" + "".join(f"g{i % 3},{i},{i % 5},{i % 2}\n" for i in range(40)))
    options = IngestSection.model_validate({"platform": "table"})
    assert read_source(source(path, tissue="skin"), options)[1].counts.sum() == 40
    with pytest.raises(ConfigError, match="molecules cannot be picked") as caught:
        read_source(source(path, **{"select.section": "1"}), options)
    assert "section = 1" in str(caught.value)


# --- spaceranger aggr


def write_aggr(
    folder: Path,
    *,
    libraries: tuple[str, ...] = ("LV1", "LV2"),
    positions: str | None = "aggr_tissue_positions.csv",
    table: bool = True,
    matrix: str = "h5",
) -> Path:
    """Write what ``spaceranger aggr`` writes: one matrix, barcodes -1, -2, ..., joined positions beside it."""
    array = hex_array(6, 6)
    n = len(array)
    names = [name[:-1] + str(k + 1) for k in range(len(libraries)) for name in barcode_names(n)]
    counts = some_counts(n * len(libraries), 6)
    folder.mkdir(parents=True)
    if matrix == "h5":
        write_tenx_h5(folder / "filtered_feature_bc_matrix.h5", counts, barcodes=names, genes=gene_rows(6))
    else:
        write_mex(folder / "filtered_feature_bc_matrix", counts, barcodes=names, genes=gene_rows(6))
    for name in libraries:
        (folder / "spatial" / name).mkdir(parents=True)
        (folder / "spatial" / name / "scalefactors_json.json").write_text('{"spot_diameter_fullres": 55.0}')
    if table:
        rows = ["library_id,molecule_h5", *(f"{name},{name}.h5" for name in libraries)]
        (folder / "aggregation.csv").write_text("\n".join(rows) + "\n")
    if positions is not None:
        many = len(libraries)
        write_positions(
            (folder / positions).parent, barcodes=names, array=np.tile(array, (many, 1)),
            xy=np.tile(hex_xy(array), (many, 1)), in_tissue=np.ones(n * many, bool), name=Path(positions).name,
        )  # fmt: skip
    return folder


@pytest.mark.parametrize(
    "positions", ["aggr_tissue_positions.csv", "spatial/aggr_tissue_positions.csv", "spatial/tissue_positions.csv"]
)
@pytest.mark.parametrize("libraries", [("LV1", "LV2"), ("a", "b", "c")])
@pytest.mark.parametrize("matrix", ["h5", "mex"])
def test_runs_joined_by_aggr(tmp_path: Path, positions: str, libraries: tuple[str, ...], matrix: str) -> None:
    folder = write_aggr(tmp_path / "outs", libraries=libraries, positions=positions, matrix=matrix)
    text = refused(source(folder), "several sections lie over one another")
    assert f"library_id: {libraries[0]} (36 spots), {libraries[1]} (36 spots)" in text
    n = 36
    for number, name in enumerate(libraries):
        for metadata in ({"library_id": name}, {"select.barcode_suffix": str(number + 1)}):
            probe, raw = read(source(folder, **metadata))
            assert (probe.n_spots, raw.geometry) == (n, "hex")
            assert (raw.counts != some_counts(n * len(libraries), 6)[number * n : (number + 1) * n]).nnz == 0
            np.testing.assert_array_equal(raw.array, hex_array(6, 6))
            assert raw.dropped == {}
    refused(source(folder, library_id="none"), "no row has library_id = none")


def test_aggr_without_its_tables(tmp_path: Path) -> None:
    folder = write_aggr(tmp_path / "a", table=False)
    assert "barcode_suffix: 1 (36 spots), 2 (36 spots)" in refused(source(folder), "sections are joined")
    assert len(read(source(folder), select={"barcode_suffix": 2})[1].spot_ids) == 36
    folder = write_aggr(tmp_path / "b", positions=None)
    assert "single runs that aggregation.csv lists" in refused(source(folder), "output of spaceranger aggr")


@pytest.mark.parametrize("matrix", ["h5", "mex"])
def test_aggr_by_its_matrix_itself(tmp_path: Path, matrix: str) -> None:
    folder = write_aggr(tmp_path / "outs", matrix=matrix)
    path = folder / ("filtered_feature_bc_matrix.h5" if matrix == "h5" else "filtered_feature_bc_matrix")
    probe, raw = read(source(path, library_id="LV2"))
    assert probe.files[-1] == folder / "aggr_tissue_positions.csv"
    assert (raw.counts != some_counts(72, 6)[36:]).nnz == 0


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("bare", [False, True])
def test_positions_of_one_run_of_several(tmp_path: Path, *, named: bool, bare: bool) -> None:
    folder = write_aggr(tmp_path / "outs", positions=None)
    array = hex_array(6, 6)
    table = write_positions(
        tmp_path / "elsewhere" if named else folder / "spatial", barcodes=barcode_names(36), array=array,
        xy=hex_xy(array), in_tissue=np.ones(36, bool),
    )  # fmt: skip
    if bare:
        table.write_text(table.read_text().replace("-1,", ","))
    slide = source(folder, coordinates=table if named else None, library_id="LV2")
    if not named and not bare:  # the positions of run 1, by their suffix
        assert "suffixes 1" in refused(slide, "none of the picked rows' barcodes")
        return
    raw = read(slide)[1]
    assert (raw.counts != some_counts(72, 6)[36:]).nnz == 0
    assert any("joined without it" in note for note in raw.notes)


@pytest.mark.parametrize("outside", [2, 20])
@pytest.mark.parametrize("kind", ["filtered", "raw"])
def test_a_filtered_matrix_whose_spots_are_outside_tissue(tmp_path: Path, outside: int, kind: str) -> None:
    array = hex_array(6, 6)
    names = barcode_names(36)
    write_tenx_h5(tmp_path / f"{kind}_feature_bc_matrix.h5", some_counts(36, 6), barcodes=names, genes=gene_rows(6))
    write_positions(
        tmp_path / "spatial", barcodes=names, array=array, xy=hex_xy(array), in_tissue=np.arange(36) >= outside
    )
    if kind == "filtered" and outside == 20:
        assert "20 of 36 barcodes" in refused(source(tmp_path), "outside tissue: they are of another slide")
        assert len(read(source(tmp_path), qc={"in_tissue": False})[1].spot_ids) == 36
        return
    probe, _ = read(source(tmp_path))
    assert any("2 of 36 barcodes of the filtered matrix" in note for note in probe.notes) == (kind == "filtered")


def test_positions_named_in_the_samplesheet(tmp_path: Path) -> None:
    array, names = hex_array(5, 5), barcode_names(25)
    matrix = write_tenx_h5(
        tmp_path / "GSM1_filtered_feature_bc_matrix.h5", some_counts(25, 6), barcodes=names, genes=gene_rows(6)
    )
    table = write_positions(
        tmp_path / "elsewhere", barcodes=names, array=array, xy=hex_xy(array), in_tissue=np.ones(25, bool), layout="v1"
    )
    plain, renamed = tmp_path / "m.h5", table.with_name("GSM1_positions.csv")
    plain.write_bytes(matrix.read_bytes())
    renamed.write_bytes(table.read_bytes())
    mex = write_mex(tmp_path / "mex", some_counts(25, 6), barcodes=names, genes=gene_rows(6))
    for path in (matrix, plain, mex):
        for positions in (table, renamed):
            probe, raw = read(source(path, coordinates=positions), platform="visium")
            assert probe.files[-1] == positions
            np.testing.assert_array_equal(raw.array, array)
            assert raw.um_per_unit == pytest.approx(0.5)
    with h5py.File(plain) as file:
        assert raw.counts.sum() == file["matrix/data"][:].sum()
