"""Pictures: the pixels that were given are the pixels that are drawn."""

from __future__ import annotations

import builtins
import io
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from stpatch.errors import MissingExtraError
from stpatch.views.look import channel_panels
from stpatch.views.montage import montage, spread
from stpatch.views.paint import EMPTY, SPLITS, colour_map, new_figure, png, show_pixels, split_colours
from stpatch.views.panels import panels_figure
from stpatch.views.patch import PatchPicture, telling_channels
from stpatch.views.slide import SlidePicture, draw_slide, log_totals


def pixels_of(data: bytes) -> np.ndarray:
    return imread(io.BytesIO(data), format="png")[..., :3]


def share_of(image: np.ndarray, colour: str, *, within: float = 0.02) -> float:
    return float((np.abs(image - np.array(to_rgb(colour))).max(axis=-1) < within).mean())


def slide(shape: tuple[int, int] = (40, 30), **changes: Any) -> SlidePicture:
    row, col = np.indices(shape)
    inside = (row - shape[0] / 2) ** 2 + (col - shape[1] / 2) ** 2 < (min(shape) / 2.2) ** 2
    values = {
        "slide_id": "s-1",
        "totals": np.where(inside, 100.0 + 10 * row, 0).astype(np.float32),
        "boxes": np.array([[0, 0, 16, 16], [8, 8, 16, 16], [30, 20, 16, 16]], dtype=np.int64),
        "splits": ("train", "train", "test"),
        "note": "3 patches",
    }
    return SlidePicture(**{**values, **changes})


def patch(n: int = 20, shape: tuple[int, int] = (16, 16), **changes: Any) -> PatchPicture:
    rng = np.random.default_rng(0)
    totals = np.full(shape, 50, dtype=np.float32)
    totals[: shape[0] // 4] = 0
    x = (rng.random((n, *shape)) * np.arange(n)[:, None, None]).astype(np.float32) * (totals > 0)
    values = {
        "key": "s-1-000001",
        "x": x,
        "totals": totals,
        "names": tuple(f"GENE{i}" for i in range(n)),
        "split": "train",
    }
    return PatchPicture(**{**values, **changes})


def test_pixels_are_drawn_exactly_and_empty_ones_as_paper() -> None:
    figure = new_figure(1, 1)
    axes = figure.add_axes((0, 0, 1, 1))
    image = np.array([[0.0, 1.0], [2.0, np.nan]])
    show_pixels(axes, image)
    drawn = pixels_of(png(figure))
    assert drawn.shape == (150, 150, 3)
    colours = colour_map("viridis")
    for (row, col), value in (((0, 0), 0.0), ((0, 1), 0.5), ((1, 0), 1.0)):
        middle = drawn[37 + 75 * row, 37 + 75 * col]
        np.testing.assert_allclose(middle, colours(value)[:3], atol=0.01)
    np.testing.assert_allclose(drawn[112, 112], to_rgb(EMPTY), atol=0.01)
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) <= 8


@pytest.mark.parametrize("image", [np.full((3, 3), np.nan), np.zeros((3, 3)), np.full((1, 1), 7.0)])
def test_flat_and_empty_images_are_drawn(image: np.ndarray) -> None:
    figure = new_figure(1, 1)
    show_pixels(figure.add_axes((0, 0, 1, 1)), image)
    assert pixels_of(png(figure)).shape == (150, 150, 3)


def test_log_totals_leave_empty_pixels_out() -> None:
    np.testing.assert_allclose(log_totals(np.array([[0, 9], [99, 0]], dtype=np.float32)), [[np.nan, 1], [2, np.nan]])


def slide_figure(picture: SlidePicture) -> Any:
    figure = new_figure(5, 5)
    draw_slide(figure.add_axes((0, 0, 1, 0.9)), picture, colours=split_colours(picture.splits))
    return figure


def test_a_slide_shows_tissue_paper_and_both_splits() -> None:
    image = pixels_of(png(slide_figure(slide())))
    assert share_of(image, EMPTY) > 0.1
    assert share_of(image, SPLITS[0], within=0.1) > 0.001
    assert share_of(image, SPLITS[1], within=0.1) > 0.001
    tissue = (image.std(axis=-1) > 0.1).mean()
    assert tissue > 0.2


@pytest.mark.parametrize(
    "changes",
    [
        {"boxes": np.zeros((0, 4), dtype=np.int64), "splits": ()},
        {"totals": np.zeros((5, 7), dtype=np.float32)},
        {"totals": np.ones((1, 1), dtype=np.float32)},
        {"boxes": np.array([[-8, -8, 16, 16]]), "splits": ("val",)},
    ],
    ids=["no patches", "no tissue", "one pixel", "over the edge"],
)
def test_odd_slides_are_drawn(changes: dict[str, Any]) -> None:
    assert pixels_of(png(slide_figure(slide(**changes)))).size


def test_the_most_varying_channels_come_first_and_pads_never() -> None:
    picture = patch(20)
    assert list(telling_channels(picture, 5)) == [19, 18, 17, 16, 15]
    names = tuple("" if i >= 15 else name for i, name in enumerate(picture.names))
    assert list(telling_channels(patch(20, names=names), 3)) == [14, 13, 12]
    assert len(telling_channels(patch(3), 11)) == 2, "channel 0 is flat"
    assert len(telling_channels(patch(3, totals=np.zeros((16, 16), dtype=np.float32)), 11)) == 0


@pytest.mark.parametrize("shape", [(16, 16), (1, 1), (8, 32)])
def test_a_patch_shows_its_channels(shape: tuple[int, int]) -> None:
    panels = channel_panels(patch(20, shape=shape), [3, 5], unit="log1p_total")
    image = pixels_of(png(panels_figure("s-1-000001", "note", panels)))
    assert [panel.title for panel in panels] == ["GENE3", "GENE5"]
    assert panels[0].scale.endswith("log1p_total")
    assert (image < 0.99).any(axis=-1).mean() > 0.02


def test_a_montage_holds_slides_and_patches_and_is_the_same_every_time() -> None:
    def draw() -> bytes:
        return png(
            montage("name", "note", slides=[slide()] * 7, patches=[patch()] * 3, splits=("train", "val", "test"))
        )

    image = pixels_of(draw())
    assert image.shape[1] == 1800
    assert image.shape[0] > 1200
    assert draw() == draw()


def test_spread_is_even() -> None:
    assert spread(0, 4) == []
    assert spread(3, 4) == [0, 1, 2]
    assert spread(100, 4) == [0, 33, 66, 99]


def test_splits_keep_their_colours() -> None:
    assert list(split_colours(["train", "val", "train"])) == ["train", "val"]
    assert len(split_colours([str(i) for i in range(10)])) == 10


def test_without_matplotlib_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def no_matplotlib(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_matplotlib)
    with pytest.raises(MissingExtraError, match=r"stpatch\[plot\]"):
        slide_figure(slide())
