"""What is made of a dataset of slides is what a build, or the slides themselves, have."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
from bundles.corpus import digests
from bundles.croppable import build_slides, write_slides
from typer.testing import CliRunner

from stpatch.cli.app import app
from stpatch.dataset.validate import verify
from stpatch.errors import ConfigError, DatasetError
from stpatch.slides.store import read_slide
from stpatch.stages.convert import to_shards, to_slides

PATCH: dict[str, Any] = {"channels": {"n": 7, "draws": 2}, "crop": {"size": [3, 4], "stride": 2}}
SHARDS: dict[str, Any] = {"patches": 7, "mix": 2}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The folder of the slides, the rows of their samplesheet, and a dataset of them."""
    folder = tmp_path_factory.mktemp("convert")
    rows = write_slides(folder)
    return folder, rows, build_slides(folder, rows, "slides", **PATCH, shards={**SHARDS, "format": "slides"})


@pytest.mark.parametrize(("format_", "encoding"), [("tar", "blosc"), ("zarr", "sparse")])
def test_shards_are_those_of_a_build(corpus, tmp_path, format_, encoding):
    folder, rows, slides = corpus
    shards = {**SHARDS, "format": format_, "encoding": encoding}
    built = build_slides(folder, rows, f"built-{format_}", **PATCH, shards=shards)
    to_shards(slides, tmp_path / "out", format_=format_, encoding=encoding, mix=2)
    expected, found = digests(built), digests(tmp_path / "out")
    assert {name for name in expected if expected[name] != found.get(name)} == {"manifest.json"}
    assert list(found) == list(expected)
    assert len([name for name in found if name.startswith("train")]) > 2
    one, other = (json.loads((path / "manifest.json").read_text()) for path in (built, tmp_path / "out"))
    different = {name for name in one if one[name] != other[name]}
    assert different <= {"digest", "fingerprint", "versions"}
    assert list(verify(tmp_path / "out", deep=True)) == []


def test_slides_come_back(corpus, tmp_path):
    folder, _, dataset = corpus
    paths = to_slides(dataset, tmp_path / "out", kind="h5ad")
    assert sorted(path.name for path in paths) == ["S0.h5ad", "S1.h5ad", "S2.h5ad"]
    for path in paths:
        expected, found = read_slide(folder / "slides.work" / "slides" / path.name), anndata.read_h5ad(path)
        whole = anndata.AnnData(expected.counts.astype(np.float32))
        whole.obs_names, whole.var_names = expected.spot_ids.astype(str), expected.genes.index.astype(str)
        same = whole[found.obs_names, found.var_names]
        assert found.shape == whole.shape
        np.testing.assert_array_equal(found.X.toarray(), same.X.toarray())
        order = [expected.spot_ids.tolist().index(name) for name in found.obs_names]
        np.testing.assert_array_equal(found.obsm["spatial"], expected.xy[order])
        np.testing.assert_array_equal(found.obs[["array_row", "array_col"]], expected.array[order])
        region = expected.labels["region"].iloc[order]
        assert found.obs["label_region"].astype(object).fillna("").tolist() == region.astype(object).fillna("").tolist()


def test_spatialdata(corpus, tmp_path):
    spatialdata = pytest.importorskip("spatialdata", reason="spatialdata is not installed")
    folder, _, dataset = corpus
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = to_slides(dataset, tmp_path / "out", kind="spatialdata")[0]
        store = spatialdata.read_zarr(path)
    table, expected = store["table"], read_slide(folder / "slides.work" / "slides" / f"{path.stem}.h5ad")
    assert table.obs["total"].sum() == expected.counts.sum() == table.X.sum()
    assert sorted(table.obs_names) == sorted(expected.spot_ids)
    assert len(store["spots"]) == expected.n_spots


def test_the_command(corpus, tmp_path):
    _, _, dataset = corpus
    done = CliRunner().invoke(app, ["convert", str(dataset), str(tmp_path / "out"), "--to", "zarr", "--patches", "5"])
    assert done.exit_code == 0, done.output
    assert "samples in" in done.stdout
    for words, error in [
        ([str(dataset), str(tmp_path / "out")], DatasetError),  # not empty
        ([str(tmp_path / "out"), str(tmp_path / "other")], DatasetError),  # no slides
        ([str(dataset), str(tmp_path / "other"), "--to", "slides"], ConfigError),
        ([str(dataset), str(tmp_path / "other"), "--encoding", "nothing"], ConfigError),
    ]:
        done = CliRunner().invoke(app, ["convert", *words])
        assert isinstance(done.exception, error)
    assert not Path(tmp_path / "other").exists()
