from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles.h5ad import make_anndata, write_anndata
from bundles.visium import hex_array, hex_xy, some_counts

from stpatch.config import IngestSection
from stpatch.errors import InputError, MissingExtraError
from stpatch.slides.readers.registry import reader_of
from stpatch.slides.slide import RawSlide
from stpatch.slides.source import Probe, SlideSource

pytest.importorskip("spatialdata")

from bundles.spatialdata import write_spatialdata


def read(path: Path, options: IngestSection | None = None, **metadata: str) -> tuple[Probe, RawSlide]:
    source = SlideSource(slide_id="slide", path=path, metadata=metadata)
    options = options or IngestSection()
    reader = reader_of("spatialdata")
    probe = reader.probe(source, options)
    assert probe is not None
    return probe, reader.read(source, options, probe)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("coordinates", ["obsm", "circles", "polygons"])
def test_coordinates_of_both_formats(tmp_path: Path, zarr_format: int, coordinates: str) -> None:
    probe, raw = read(write_spatialdata(tmp_path / "s.zarr", coordinates=coordinates, zarr_format=zarr_format))
    assert (probe.n_spots, probe.n_genes) == raw.counts.shape == (20, 8)
    assert (raw.counts != some_counts(20, 8)).nnz == 0
    np.testing.assert_allclose(raw.xy, hex_xy(hex_array(4, 5)))
    assert all(file.is_file() for file in probe.files)
    assert ("centroids" in probe.reason) == (coordinates != "obsm")


@pytest.mark.parametrize("coordinates", ["obsm", "circles"])
def test_one_slide_a_region(tmp_path: Path, coordinates: str) -> None:
    path = write_spatialdata(tmp_path / "s.zarr", regions=("left", "right"), coordinates=coordinates)
    _, raw = read(path, region="right")
    assert (raw.counts != some_counts(20, 8)[1::2]).nnz == 0
    np.testing.assert_allclose(raw.xy, hex_xy(hex_array(4, 5))[1::2])
    with pytest.raises(InputError, match="several regions") as caught:
        read(path)
    assert "left, right" in str(caught.value)
    with pytest.raises(InputError, match="no such region"):
        read(path, region="middle")


def test_a_region_column_means_nothing_to_a_table_of_one_region(tmp_path: Path) -> None:
    assert read(write_spatialdata(tmp_path / "s.zarr"), region="cortex")[1].counts.shape == (20, 8)


def test_the_path_names_the_table(tmp_path: Path) -> None:
    path = write_spatialdata(tmp_path / "s.zarr", tables=("cells_table", "other"))
    _, raw = read(path / "tables" / "other")
    assert (raw.counts != some_counts(20, 8, seed=1)).nnz == 0
    with pytest.raises(InputError, match="several tables") as caught:
        read(path)
    assert "cells_table, other" in str(caught.value)
    assert "s.zarr/tables/cells_table" in str(caught.value)


def test_the_config_names_the_bin_of_visium_hd(tmp_path: Path) -> None:
    path = write_spatialdata(tmp_path / "s.zarr", tables=("square_008um", "square_016um"))
    assert "table square_008um" in read(path)[0].reason
    assert "table square_016um" in read(path, IngestSection(hd_bin_um=16))[0].reason
    with pytest.raises(InputError, match="several tables"):
        read(path, IngestSection(hd_bin_um=2))


def test_visium_keeps_its_lattice(tmp_path: Path) -> None:
    raw = read(write_spatialdata(tmp_path / "s.zarr", visium=True))[1]
    assert raw.geometry == "hex"
    assert raw.pitch == pytest.approx(200)


def test_a_store_and_an_anndata_group_are_told_apart(tmp_path: Path) -> None:
    store = write_spatialdata(tmp_path / "s.zarr")
    group = write_anndata(tmp_path / "a.zarr", make_anndata(), zarr_format=3)
    for path in (store, store / "tables" / "table"):
        source = SlideSource(slide_id="slide", path=path)
        assert reader_of("h5ad").probe(source, IngestSection()) is None
        assert reader_of("spatialdata").probe(source, IngestSection()) is not None
    assert reader_of("spatialdata").probe(SlideSource(slide_id="slide", path=group), IngestSection()) is None


def test_without_the_library_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_spatialdata(tmp_path / "s.zarr", coordinates="circles")
    monkeypatch.setitem(sys.modules, "spatialdata", None)
    with pytest.raises(MissingExtraError, match="not installed") as caught:
        read(path)
    assert "stpatch[spatialdata]" in str(caught.value)


def no_tables(store: Path) -> None:
    shutil.rmtree(store / "tables")


def no_shapes(store: Path) -> None:
    shutil.rmtree(store / "shapes")


def no_matrix(store: Path) -> None:
    shutil.rmtree(store / "tables" / "table" / "X")


def no_instances(store: Path) -> None:
    shutil.rmtree(store / "tables" / "table" / "obs" / "cell")


def no_table_marks(store: Path) -> None:
    edit_attributes(store / "tables" / "table", lambda attributes: attributes.pop("encoding-type"))


def edit_attributes(group: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = group / "zarr.json"
    metadata = json.loads(file.read_text())
    change(metadata["attributes"])
    file.write_text(json.dumps(metadata))


def broken_json(store: Path) -> None:
    (store / "tables" / "table" / "zarr.json").write_text("{")


def broken_chunk(store: Path) -> None:
    for file in (store / "tables" / "table" / "X" / "data" / "c").rglob("*"):
        if file.is_file():
            file.write_bytes(b"nothing")


def broken_shapes(store: Path) -> None:
    (store / "shapes" / "cells" / "shapes.parquet").write_bytes(b"PAR1")


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (no_tables, "no table"),
        (no_shapes, "no shapes"),
        (no_matrix, "no matrix"),
        (no_instances, "cannot be read|lacks a column"),
        (no_table_marks, "not an AnnData group"),
        (broken_json, "cannot be read"),
        (broken_chunk, "cannot be read"),
        (broken_shapes, "cannot be read"),
    ],
)
def test_problems_end_in_a_clear_error(tmp_path: Path, problem: Callable[[Path], None], message: str) -> None:
    path = write_spatialdata(tmp_path / "s.zarr", coordinates="circles")
    problem(path)
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert str(tmp_path) in str(caught.value)
