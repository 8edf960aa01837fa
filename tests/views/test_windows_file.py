"""Windows in viewers: corners lie where the files' spots are, in each viewer's own format."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bundles.built import build, poisson_counts, square, write_counts
from commands import built, stpatch

from stpatch.engine.placement import place_grid, placed_windows
from stpatch.errors import DatasetError
from stpatch.stages.job import Job
from stpatch.views.windows_file import geojson, napari_shapes, xenium_selections

TURN = np.array([[30.0, 4.0], [-4.0, 30.0]])
SHIFT = np.array([500.0, 200.0])


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Build a square slide whose array is turned and shifted in the image."""
    folder = tmp_path_factory.mktemp("windows")
    places = square(8, 12)
    xy = places[:, ::-1] @ TURN.T + SHIFT
    write_counts(folder / "a.h5ad", poisson_counts(96, 6), array=places, xy=xy)
    return build(folder, [{"slide_id": "a"}], ingest={"um_per_unit": 0.5})


def test_the_grid_lies_where_the_spots_are(job: Job) -> None:
    placement = place_grid(job.work, "a")
    np.testing.assert_allclose(placement.matrix[:, :2], TURN, atol=1e-6)
    np.testing.assert_allclose(placement.matrix @ [0.5, 0.5, 1], SHIFT, atol=1e-6)
    assert placement.residual < 1e-6
    assert placement.um_per_unit == 0.5


def test_a_window_has_its_corners(job: Job) -> None:
    placed = placed_windows(job.output, job.work, "a")
    row = pd.read_parquet(job.output / "patches.parquet").set_index("key")
    for key, corners in zip(placed.keys, placed.corners, strict=True):
        top, left = row.loc[key, ["row", "col"]].to_numpy(dtype=float)
        np.testing.assert_allclose(corners[0], np.array([left - 0.5, top - 0.5]) @ TURN.T + SHIFT, atol=1e-6)
        np.testing.assert_allclose(corners[2], np.array([left + 3.5, top + 3.5]) @ TURN.T + SHIFT, atol=1e-6)


def test_geojson_is_what_qupath_and_geopandas_take(job: Job) -> None:
    placed = placed_windows(job.output, job.work, "a")
    value = json.loads(geojson(placed))
    assert value["type"] == "FeatureCollection"
    assert len(value["features"]) == 6
    one = value["features"][0]
    ring = one["geometry"]["coordinates"][0]
    assert ring[0] == ring[-1]
    assert len(ring) == 5
    assert one["properties"]["objectType"] == "annotation"
    assert one["properties"]["classification"] == {"name": "train", "color": [0, 114, 178]}
    geopandas = pytest.importorskip("geopandas", reason="geopandas is not installed (extra spatialdata)")
    frame = geopandas.GeoDataFrame.from_features(value["features"])
    np.testing.assert_allclose(frame.area, 16 * np.linalg.det(TURN), rtol=1e-4)
    models = pytest.importorskip("spatialdata.models", reason="spatialdata is not installed (extra spatialdata)")
    assert len(models.ShapesModel.parse(frame)) == 6


def test_xenium_explorer_gets_micrometres(job: Job) -> None:
    placed = placed_windows(job.output, job.work, "a")
    lines = xenium_selections(placed).decode().splitlines()
    assert [line[0] for line in lines[:2]] == ["#", "#"]
    frame = pd.DataFrame(list(csv.DictReader(lines[2:])))
    assert list(frame) == ["Selection", "X", "Y"]
    first = frame[frame["Selection"] == placed.keys[0]][["X", "Y"]].to_numpy(dtype=float)
    np.testing.assert_allclose(first[:4], placed.corners[0] * 0.5, atol=1e-3)


def test_napari_gets_rows_before_columns(job: Job) -> None:
    placed = placed_windows(job.output, job.work, "a")
    rows = list(csv.DictReader(napari_shapes(placed).decode().splitlines()))
    assert len(rows) == 4 * len(placed.keys)
    assert (float(rows[1]["axis-1"]), float(rows[1]["axis-0"])) == pytest.approx(tuple(placed.corners[0][1]), abs=1e-3)


def test_the_command_writes_the_file(job: Job, tmp_path: Path) -> None:
    out = tmp_path / "w.geojson"
    assert "6 of slide a" in built("windows", job.output, "--slide", "a", "-o", out).out
    assert json.loads(out.read_bytes())["features"]
    for words in (["--slide", "b"], ["--slide", "a", "--as", "svg"], ["--slide", "a", "--work-dir", tmp_path]):
        assert stpatch("windows", job.output, *words).code == 2


def test_without_a_work_dir_the_message_says_so(job: Job) -> None:
    with pytest.raises(DatasetError, match="--work-dir"):
        placed_windows(job.output, None, "a")
