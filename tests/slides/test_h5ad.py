from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from bundles.h5ad import make_anndata, write_anndata, write_h5ad
from bundles.visium import UM_PER_PX, hex_array, some_counts
from scipy import sparse

from stpatch.config import IngestSection
from stpatch.errors import InputError
from stpatch.slides.readers.registry import reader_of
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource


def read(path: Path, options: IngestSection | None = None) -> tuple[Probe, RawSlide]:
    source = SlideSource(slide_id="slide", path=path)
    options = options or IngestSection()
    reader = reader_of("h5ad")
    probe = reader.probe(source, options)
    assert probe is not None
    return probe, reader.read(source, options, probe)


def saved(tmp_path: Path, **options: Any) -> RawSlide:
    return read(write_h5ad(tmp_path / "slide.h5ad", **options))[1]


@pytest.mark.parametrize("matrix", ["X", "layers", "raw"])
@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
def test_counts_are_found_wherever_they_are(tmp_path: Path, matrix: str, storage: str) -> None:
    raw = saved(tmp_path, matrix=matrix, storage=storage)
    assert (raw.counts != some_counts(20, 8)).nnz == 0
    assert raw.counts.dtype == np.uint16
    assert raw.genes.iloc[2].tolist() == ["GENE2", "ENSG00000000002", "Gene Expression"]


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("storage", ["csr", "dense"])
def test_zarr_of_both_formats(tmp_path: Path, zarr_format: int, storage: str) -> None:
    path = write_anndata(tmp_path / "slide.zarr", make_anndata(storage=storage), zarr_format=zarr_format)
    probe, raw = read(path)
    assert (probe.n_spots, probe.n_genes) == raw.counts.shape == (20, 8)
    assert (raw.counts != some_counts(20, 8)).nnz == 0
    assert all(file.is_file() for file in probe.files)


def test_visium_through_scanpy_is_hexagonal_with_a_scale(tmp_path: Path) -> None:
    raw = saved(tmp_path)
    assert raw.geometry == "hex"
    assert raw.um_per_unit == pytest.approx(UM_PER_PX)
    assert raw.pitch == pytest.approx(200)
    assert raw.spots["in_tissue"].dtype == bool
    assert isinstance(raw.spots["region"].dtype, pd.CategoricalDtype)


def test_without_array_indices_the_lattice_is_found_from_the_coordinates(tmp_path: Path) -> None:
    raw = saved(tmp_path, visium=False)
    assert raw.geometry == "hex"
    assert raw.array is not None
    np.testing.assert_array_equal(raw.array, hex_array(4, 5))
    assert raw.um_per_unit is None
    assert raw.pitch == pytest.approx(200)
    assert any("array indices are from the coordinates: a hexagonal lattice of pitch 200" in note for note in raw.notes)
    assert any("nothing tells the micrometres" in note for note in raw.notes)


def test_without_a_lattice_it_is_irregular(tmp_path: Path) -> None:
    slide = make_anndata(visium=False)
    slide.obsm["spatial"] = np.random.default_rng(0).random((20, 2)) * 1000
    raw = read(write_anndata(tmp_path / "slide.h5ad", slide))[1]
    assert (raw.geometry, raw.array, raw.um_per_unit) == ("irregular", None, None)


@pytest.mark.parametrize("checkerboard", [False, True])
def test_square_arrays_are_told_from_hexagonal_ones(tmp_path: Path, *, checkerboard: bool) -> None:
    slide = make_anndata()
    row, column = np.divmod(np.arange(20), 5)
    if checkerboard:
        column = 2 * column + row % 2
    slide.obs["array_row"], slide.obs["array_col"] = row, column
    slide.obsm["spatial"] = np.column_stack([column, row]) * 30.0
    raw = read(write_anndata(tmp_path / "slide.h5ad", slide))[1]
    assert raw.geometry == "square"
    assert raw.pitch == pytest.approx(30)


def test_bins_give_their_scale(tmp_path: Path) -> None:
    slide = make_anndata()
    row, column = np.divmod(np.arange(20), 5)
    slide.obs["array_row"], slide.obs["array_col"] = row, column
    slide.obsm["spatial"] = np.column_stack([column, row]) * 32.0
    slide.uns["spatial"] = {"hd": {"scalefactors": {"microns_per_pixel": 0.25, "bin_size_um": 8.0}}}
    raw = read(write_anndata(tmp_path / "slide.h5ad", slide))[1]
    assert (raw.geometry, raw.um_per_unit, raw.pitch) == ("square", 0.25, 32)


def test_coordinates_may_lie_in_obs_or_have_a_third_axis(tmp_path: Path) -> None:
    slide = make_anndata(visium=False)
    xy = np.asarray(slide.obsm["spatial"])
    slide.obsm["spatial"] = np.column_stack([xy, np.zeros(len(xy))])
    np.testing.assert_array_equal(read(write_anndata(tmp_path / "a.h5ad", slide))[1].xy, xy)
    del slide.obsm["spatial"]
    slide.obs["x"], slide.obs["y"] = xy[:, 0], xy[:, 1]
    np.testing.assert_array_equal(read(write_anndata(tmp_path / "b.h5ad", slide))[1].xy, xy)


def test_an_index_of_ensembl_ids_gives_way_to_symbols(tmp_path: Path) -> None:
    slide = make_anndata()
    slide.var["gene_name"] = [*slide.var_names[:-1], ""]
    slide.var_names = slide.var["gene_ids"].astype(str)
    genes = read(write_anndata(tmp_path / "slide.h5ad", slide))[1].genes
    assert genes["name"].tolist() == [*(f"GENE{i}" for i in range(7)), "ENSG00000000007"]
    assert genes["ensembl_id"][0] == "ENSG00000000000"


def test_gene_names_may_repeat(tmp_path: Path) -> None:
    slide = make_anndata()
    slide.var_names = ["A"] * 8
    assert read(write_anndata(tmp_path / "slide.h5ad", slide))[1].genes["name"].tolist() == ["A"] * 8


def test_fractions_in_one_place_send_it_to_the_next(tmp_path: Path) -> None:
    slide = make_anndata()
    slide.layers["counts"] = slide.X * 0.5
    raw = read(write_anndata(tmp_path / "slide.h5ad", slide))[1]
    assert raw.counts.sum() == some_counts(20, 8).sum()
    assert "layers/counts holds fractions" in raw.notes[0]


def test_normalized_values_are_read_on_request_only(tmp_path: Path) -> None:
    slide = make_anndata()
    slide.X = sparse.csr_matrix(slide.X, dtype=np.float32).log1p()
    slide.uns["log1p"] = {"base": 2.0}
    path = write_anndata(tmp_path / "slide.h5ad", slide)
    with pytest.raises(InputError, match="no raw counts") as caught:
        read(path)
    assert "logarithms" in str(caught.value)
    assert "ingest.values: normalized" in str(caught.value)
    raw = read(path, IngestSection(values="normalized"))[1]
    assert raw.counts.dtype == np.float32
    np.testing.assert_allclose(raw.counts.toarray(), np.log1p(some_counts(20, 8).toarray()), rtol=1e-6)


def fields_of_view(*, with_global: bool) -> Any:
    slide = make_anndata(visium=False)
    local = np.random.default_rng(0).uniform(0, 100, (20, 2))
    slide.obs["fov"] = np.arange(20) % 4
    slide.obsm["spatial"] = local
    if with_global:
        slide.obsm["global"] = local + np.column_stack([(np.arange(20) % 4) * 100.0, np.zeros(20)])
    return slide


def test_coordinates_local_to_fields_of_view(tmp_path: Path) -> None:
    slide = fields_of_view(with_global=True)
    raw = read(write_anndata(tmp_path / "a.h5ad", slide))[1]
    np.testing.assert_array_equal(raw.xy, slide.obsm["global"])
    assert "obsm/global" in raw.notes[0]
    with pytest.raises(InputError, match="local to each field of view"):
        read(write_anndata(tmp_path / "b.h5ad", fields_of_view(with_global=False)))
    slide.obsm["spatial"] = slide.obsm["global"]
    assert read(write_anndata(tmp_path / "c.h5ad", slide))[1].notes == ()


def set_spatial(value: float) -> Callable[[Any], None]:
    def apply(slide: Any) -> None:
        slide.obsm["spatial"][3, 1] = value

    return apply


def set_count(value: float) -> Callable[[Any], None]:
    def apply(slide: Any) -> None:
        slide.X = sparse.csr_matrix(slide.X, dtype=np.float64)
        slide.X.data[2] = value

    return apply


def repeated_names(slide: Any) -> None:
    slide.obs_names = [slide.obs_names[0], *slide.obs_names[:-1]]


def no_coordinates(slide: Any) -> None:
    del slide.obsm["spatial"]


def one_coordinate(slide: Any) -> None:
    slide.obsm["spatial"] = slide.obsm["spatial"][:, :1]


def repeated_place(slide: Any) -> None:
    slide.obs["array_row"], slide.obs["array_col"] = 1, 1


def odd_tissue(slide: Any) -> None:
    slide.obs["in_tissue"] = "perhaps"


def words_for_indices(slide: Any) -> None:
    slide.obs["array_row"] = "first"


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (set_spatial(np.nan), "not a finite number"),
        (set_spatial(np.inf), "not a finite number"),
        (set_count(-1), "a count is negative"),
        (set_count(0.5), "only normalized values"),
        (set_count(np.nan), "not a finite number"),
        (repeated_names, "a spot id is given twice"),
        (no_coordinates, "no coordinates"),
        (one_coordinate, "wrong shape"),
        (repeated_place, "spots share places"),
        (odd_tissue, "in_tissue is neither 0 nor 1"),
        (words_for_indices, "'array_row' is not a number"),
    ],
)
def test_problems_end_in_a_clear_error(tmp_path: Path, problem: Callable[[Any], None], message: str) -> None:
    slide = make_anndata()
    problem(slide)
    path = write_anndata(tmp_path / "slide.h5ad", slide)
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def endless_heap(path: Path) -> None:
    content = bytearray(path.read_bytes())
    place = content.index(b"GCOL\x01\0\0\0") + 16
    content[place : place + 16] = bytes(16)
    path.write_bytes(content)


def no_hdf5(path: Path) -> None:
    path.write_text("not at all")


def without(key: str) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            del file[key]

    return apply


def replaced(key: str, value: Any) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            del file[key]
            file[key] = value

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "cut short"),
        (endless_heap, "damaged"),
        (no_hdf5, "not an HDF5 file"),
        (without("X"), "no matrix"),
        (without("obs"), "has no 'obs'"),
        (without("var"), "has no 'var'"),
        (without("X/indptr"), "cannot be read"),
        (replaced("X/indptr", np.zeros(3)), "indptr"),
        (replaced("X/data", np.zeros(3)), "differ in length"),
        (replaced("X/indices", np.full(3, 99)), "outside the matrix"),
        (replaced("obsm/spatial", np.zeros((3, 2))), "cannot be read|wrong shape"),
    ],
)
def test_damaged_files_end_in_a_clear_error(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    path = write_h5ad(tmp_path / "slide.h5ad")
    damage(path)
    with pytest.raises(InputError, match=message):
        read(path)


def test_damaged_zarr_ends_in_a_clear_error(tmp_path: Path) -> None:
    path = write_anndata(tmp_path / "slide.zarr", make_anndata(), zarr_format=3)
    chunk = next(file for file in (path / "X" / "data" / "c").rglob("*") if file.is_file())
    chunk.write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read"):
        read(path)
    (path / "zarr.json").write_text("{")
    with pytest.raises(InputError, match="metadata cannot be read"):
        read(path)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["matrix"] = np.zeros(3)
    for path in (tmp_path, tmp_path / "notes.txt", tmp_path / "other.h5"):
        assert reader_of("h5ad").probe(SlideSource(slide_id="slide", path=path), IngestSection()) is None


def test_real_slide(data_dir: Path) -> None:
    path = data_dir / "h5ad" / "st_breast_layer2.h5ad"
    probe, raw = read(path)
    with h5py.File(path) as file:
        total = int(file["X/data"][:].sum())
    assert raw.counts.sum() == total
    assert (probe.n_spots, probe.n_genes) == raw.counts.shape == (251, 14789)
    assert raw.pitch == pytest.approx(1, abs=0.001)  # places of an ST array, jittered
    assert raw.geometry == "square"
    assert raw.array is not None
    assert np.abs(raw.xy - raw.xy.mean(axis=0) - (raw.array - raw.array.mean(axis=0))[:, ::-1]).max() < 0.5
