"""What reads Zarr v3 reads the arrays of a zarr dataset: zarr-python, zarrs, xarray, tensorstore."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr
from bundles.dataset import make_sample, write_dataset

ENCODINGS = ("blosc", "npy", "sparse")


@pytest.fixture(params=[(encoding, variable) for encoding in ENCODINGS for variable in (False, True)], ids=str)
def written(request, tmp_path):
    """Return (encoding, group, arrays by name), the arrays as they were before they were written."""
    encoding, variable = request.param
    layout = write_dataset(tmp_path, format="zarr", encoding=encoding, variable=variable).layout
    planes = {plane.name: plane for plane in layout.planes}
    made = {name: np.full((6, *plane.shape), plane.fill, plane.dtype) for name, plane in planes.items()}
    for number in range(6):
        sample = make_sample(number, layout, slide_id=f"s{1 + number % 2}")
        arrays = {"x": sample.x, "totals": sample.totals, "genes": sample.genes}
        arrays |= {f"label_{name}": label for name, label in sample.labels.items()}
        for name, array in arrays.items():
            made[name][(number, *map(slice, array.shape))] = array
    return encoding, tmp_path / "train.zarr", made


def test_zarr_python(written):
    _, folder, made = written
    group = zarr.open(str(folder), mode="r")
    for name, array in made.items():
        np.testing.assert_array_equal(group[name][:], array)
        np.testing.assert_array_equal(group[name][2:5], array[2:5])


def test_zarrs(written):
    pytest.importorskip("zarrs", reason="the package zarrs is not installed")
    encoding, folder, made = written
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        group = zarr.open(str(folder), mode="r")
        for name, array in made.items():
            if encoding == "sparse" and name == "x":
                with pytest.warns(UserWarning, match=r"stpatch.sparse is not supported"):
                    np.testing.assert_array_equal(group[name][:], array)  # zarr-python's own pipeline steps in
            else:
                np.testing.assert_array_equal(group[name][:], array)


def test_xarray(written):
    xarray = pytest.importorskip("xarray", reason="the package xarray is not installed")
    _, folder, made = written
    opened = xarray.open_zarr(str(folder), consolidated=False, chunks=None)
    assert opened["x"].dims == ("patch", "channel", "row", "col")
    for name, array in made.items():
        assert opened[name].dtype == array.dtype
        np.testing.assert_array_equal(opened[name].isel(patch=slice(1, 5)).values, array[1:5])


def test_tensorstore(written):
    tensorstore = pytest.importorskip("tensorstore", reason="the package tensorstore is not installed")
    encoding, folder, made = written
    for name, array in made.items():
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{folder}/{name}/"}}
        if encoding == "sparse" and name == "x":
            with pytest.raises(ValueError, match=r"stpatch.sparse"):
                tensorstore.open(spec, read=True).result()
            continue
        opened = tensorstore.open(spec, read=True).result()
        assert list(opened.domain.labels) == json.loads((folder / name / "zarr.json").read_text())["dimension_names"]
        np.testing.assert_array_equal(opened.read().result(), array)
        np.testing.assert_array_equal(opened[3].read().result(), array[3])
