"""The preview's parts: which slides and patches, and how they are put together."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from stpatch.config import CropSection
from stpatch.image.crop import cut_patches
from stpatch.views.preview import assemble, pick_patch, pick_slides


@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    stride=st.integers(1, 16),
    edge=st.sampled_from(["pad", "shift"]),
)
def test_patches_give_the_slide_back(shape: tuple[int, int], stride: int, edge: str) -> None:
    totals = (np.arange(shape[0] * shape[1]).reshape(shape) + 1).astype(np.float32)
    section = CropSection(size=(16, 16), stride=stride, edge=edge, min_coverage=0)  # type: ignore[arg-type]
    patches = cut_patches((totals > 0).astype(np.int32), section=section, seed=0, slide_id="s")
    padded = np.pad(totals, 32)
    pieces = [
        padded[row + 32 : row + 48, col + 32 : col + 48]
        for row, col in zip(patches.row.tolist(), patches.col.tolist(), strict=True)
    ]
    canvas = assemble(patches.row.astype(np.int64), patches.col.astype(np.int64), pieces, shape=shape)
    np.testing.assert_array_equal(canvas, totals)


def test_slides_come_from_every_split_and_platform() -> None:
    slides = pd.DataFrame(
        {
            "slide_id": [f"s{i}" for i in range(10)],
            "split": ["train"] * 8 + ["val", "test"],
            "platform": ["visium"] * 7 + ["st", "st", "visium"],
        }
    )
    assert pick_slides(slides, 4) == ["s0", "s7", "s8", "s9"]
    assert pick_slides(slides, 5) == ["s0", "s1", "s7", "s8", "s9"]
    assert pick_slides(slides, 99) == list(slides["slide_id"])


def test_the_patch_is_well_covered() -> None:
    patches = pd.DataFrame({"coverage": [0.1, 1.0, 0.97, 1.0, 0.2]}, index=[5, 6, 7, 8, 9])
    assert pick_patch(patches) == 7
