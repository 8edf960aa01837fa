"""Whole datasets in words and pictures, from the datasets alone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles.dataset import write_dataset
from matplotlib.image import imread

from stpatch.errors import DatasetError
from stpatch.views.describe import describe_dataset, describe_patch
from stpatch.views.look import Choice, patch_panels
from stpatch.views.paint import png
from stpatch.views.panels import panels_figure
from stpatch.views.preview import patch_picture, preview, slide_picture
from stpatch.views.whole import Whole

KINDS: list[dict[str, Any]] = [
    {},
    {"format": "zarr"},
    {"genes": False},
    {"variable": True},
    {"shape": (4, 1, 1)},
    {"dtype": "float32", "values": "normalized"},
]


@pytest.fixture(params=KINDS, ids=["tar", "zarr", "panel", "slides", "spots", "normalized"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    write_dataset(tmp_path / "tiny", **request.param)
    return tmp_path / "tiny"


def test_every_kind_of_dataset_is_drawn(folder: Path) -> None:
    image = imread(io.BytesIO(png(preview(folder))), format="png")
    assert image.shape[1] == 1800
    assert (image[..., :3] < 0.9).any(axis=-1).mean() > 0.005


def test_every_kind_of_dataset_is_described(folder: Path) -> None:
    text = describe_dataset(folder)
    for word in ("tiny 1.0.0", "2 slides", "7 patches", "train", "val", "s1", "s2", "log1p_total", "cancer, stroma"):
        assert word in text


def test_every_patch_is_described_and_drawn(folder: Path) -> None:
    for key in Whole(folder).patches["key"]:
        text = describe_patch(folder, key)
        assert text.startswith(key)
        assert "label region" in text
    panels = patch_panels(Whole(folder), key, Choice())
    assert [panel.title for panel in panels][:2] == ["total counts", "mask"]
    assert png(panels_figure(key, "note", panels))[:4] == b"\x89PNG"


def test_a_slide_is_its_patches_put_together(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    whole = Whole(tmp_path)
    rows = whole.patches[whole.patches["slide_id"] == "s1"]
    picture = slide_picture(whole, "s1", rows)
    assert picture.totals.shape == (400, 400)
    last = rows.iloc[-1]
    sample = whole.sample(last["key"], split=last["split"])
    height, width = sample.totals.shape
    place = np.s_[last["row"] : last["row"] + height, last["col"] : last["col"] + width]
    np.testing.assert_array_equal(picture.totals[place], sample.totals)
    assert picture.splits == tuple(rows["split"])


def test_a_patch_is_drawn_in_normalized_values(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    whole = Whole(tmp_path)
    key = whole.patches["key"].iloc[0]
    counts = whole.sample(key, split="train")
    picture = patch_picture(whole, key)
    expected = np.log1p(counts.x * 10_000.0 / np.maximum(counts.totals, 1))
    np.testing.assert_allclose(picture.x, expected, rtol=1e-5)
    assert [bool(name) for name in picture.names] == [bool(gene) for gene in counts.genes]


def test_unmeasured_channels_are_named(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    texts = [describe_patch(tmp_path, key) for key in Whole(tmp_path).patches["key"] if key.startswith("s2")]
    assert any("unmeasured    G" in text for text in texts), "slide s2 measured G1 to G4 alone"


def test_an_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    with pytest.raises(DatasetError, match="did you mean 's1-00000"):
        describe_patch(tmp_path, "s1-00000")
    with pytest.raises(DatasetError, match="not a dataset"):
        describe_dataset(tmp_path / "nothing")
