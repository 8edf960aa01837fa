"""`inspect`: a patch, a slide and a shard in words, as a picture and in a terminal."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from bundles.dataset import write_dataset
from commands import built, stpatch
from matplotlib.image import imread

from stpatch.views.look import Choice, patch_panels, shard_panels, slide_panels
from stpatch.views.terminal import blocks, has_colours
from stpatch.views.whole import Whole


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_a_slide_and_a_shard_are_described(folder: Path) -> None:
    text = built("inspect", folder, "--slide", "s1").out
    assert "400 x 400 pixels, 100 um a pixel" in text
    assert "s1-00000" in text
    text = built("inspect", folder, "--shard", "train-000000.tar").out
    assert "4 samples of 2 slides" in text
    assert text.count("s1-0") == 2


@pytest.mark.parametrize("words", [["s1-000000"], ["--slide", "s1"], ["--shard", "train-000001.tar"], []])
def test_everything_is_drawn(words: list[str], folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    assert str(out) in built("inspect", folder, *words, "--png", out).out
    image = imread(io.BytesIO(out.read_bytes()), format="png")[..., :3]
    assert (image < 0.9).any(axis=-1).mean() > 0.005


def test_a_patch_has_mask_label_place_and_the_asked_gene(folder: Path) -> None:
    whole = Whole(folder)
    key = "s1-000002"
    sample = whole.sample(key, split="train")
    assert sample.genes is not None
    gene = f"G{sample.genes[0]}"
    panels = patch_panels(whole, key, Choice(genes=(gene,)))
    assert [panel.title for panel in panels] == ["total counts", "mask", "label region", "place in s1", gene]
    np.testing.assert_array_equal(panels[1].image == 0, sample.totals > 0)
    assert panels[3].boxes == ((2, 6, 3, 5),)
    assert panels[4].unit == "log1p_total"
    assert [panel.title for panel in patch_panels(whole, key, Choice(n=2))][4:] != [gene]


def test_wrong_requests_say_what_there_is(folder: Path) -> None:
    for words, said in (
        (["--slide", "s11"], "did you mean 's"),
        (["--shard", "none.tar"], "train/train-000000.tar"),
        (["s1-000000", "--slide", "s1"], "one thing at a time"),
        (["s1-000000", "--label", "nope", "--png", "x.png"], "region"),
        (["s1-000000", "--gene", "nope", "--png", "x.png"], "there is no such gene"),
        (["--show"], "stpatch report"),
        (["s1-000000", "--show"], "COLORTERM"),
    ):
        done = stpatch("inspect", folder, *words)
        assert done.code == 2
        assert said in done.err
        assert not Path("x.png").exists()


def test_slides_and_shards_are_panels(folder: Path) -> None:
    whole = Whole(folder)
    titles = [panel.title for panel in slide_panels(whole, "s1", Choice(genes=("G1", "G9")))]
    assert titles[0] == "total counts"
    assert titles[-1].endswith("windows")
    assert len(shard_panels(whole, "train/train-000000.tar", most=3)) == 3


def test_a_terminal_shows_two_pixels_in_a_character() -> None:
    pixels = np.zeros((3, 2, 4), np.uint8)
    pixels[0, 0] = (1, 2, 3, 255)
    pixels[1, 0] = (4, 5, 6, 255)
    pixels[2, 1] = (7, 8, 9, 255)
    first, second = blocks(pixels, width=10).split("\n")
    assert first.startswith("\x1b[38;2;1;2;3m\x1b[48;2;4;5;6m\u2580\x1b[0m ")
    assert "\x1b[38;2;7;8;9m\u2580" in second
    assert len(blocks(np.zeros((8, 80, 4), np.uint8), width=20).split("\n")) == 1


def test_only_a_terminal_that_says_so_has_colours() -> None:
    assert has_colours({"COLORTERM": "truecolor"}, is_terminal=True)
    assert not has_colours({"COLORTERM": "truecolor"}, is_terminal=False)
    assert not has_colours({"COLORTERM": "truecolor", "NO_COLOR": "1"}, is_terminal=True)
    assert not has_colours({}, is_terminal=True)
