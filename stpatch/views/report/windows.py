"""Why a slide has the patches that it has: all windows that the crop considered, and what became of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.config import CropSection
from stpatch.image.crop import cut_patches, window_sums

KEPT = ""
EMPTY = "no spot"
UNTOLD = "no spot, or too few"
COVERAGE = "below min_coverage"
SPOTS = "below min_spots"
EXCLUDED = "on the reject list"
PLAN = "across the border of two splits"

_GEOMETRY = ("unit", "size", "method", "stride", "density", "edge")
_MOST_CENTERED = 20_000
"""Centered windows that are listed at most: one lies around every spot."""


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows of one slide, those that are kept and those that are not.

    Attributes
    ----------
    boxes
        (windows, 4) int64: row, col, height and width in pixels.
    why
        (windows,) `KEPT`, or the reason why it is no patch.
    split
        (windows,) the split of a kept one, else "".
    """

    boxes: NDArray[np.int64]
    why: tuple[str, ...]
    split: tuple[str, ...]

    def tally(self) -> dict[str, int]:
        """Return how many windows have each fate, kept ones first."""
        return {fate: self.why.count(fate) for fate in dict.fromkeys((KEPT, *sorted(set(self.why))))}


def explain_windows(
    patches: pd.DataFrame,
    *,
    crop: Mapping[str, Any],
    shape: tuple[int, int],
    seed: int,
    slide_id: str,
    size: tuple[int, int],
    spots_per_pixel: NDArray[np.int32] | None = None,
) -> Windows:
    """List the windows of a slide and say why some are no patches.

    Parameters
    ----------
    patches
        The slide's rows of patches.parquet, with ``height`` and ``width`` where samples vary.
    crop
        The manifest's section.
    shape
        Rows and columns of the grid.
    seed, slide_id
        Of the dataset and the slide: they fix random windows.
    size
        Height and width of a patch, where they do not vary.
    spots_per_pixel
        (rows, columns) int32; None where only the patches are known, which cannot tell an empty window from one with
        too few spots.
    """
    once = patches.drop_duplicates(["row", "col"])
    kept = _boxes(once, size)
    splits = tuple(str(split) for split in once["split"])
    section = CropSection.model_validate({name: crop[name] for name in _GEOMETRY if name in crop})
    centered = section.method == "centered" and section.unit == "patch"
    if section.unit != "patch" or (centered and (spots_per_pixel is None or spots_per_pixel.size > _MOST_CENTERED)):
        return Windows(boxes=kept, why=(KEPT,) * len(kept), split=splits)
    everything = section.model_copy(update={"min_coverage": 0.0, "min_spots": 0})
    # where nothing is known of the spots, a spot on every pixel gives every window that lies on the grid
    ground = np.ones(shape, dtype=np.int32) if spots_per_pixel is None or not centered else spots_per_pixel
    found = cut_patches(ground, section=everything, seed=seed, slide_id=slide_id)
    boxes = np.column_stack([found.row, found.col, found.height, found.width]).astype(np.int64).reshape(-1, 4)
    known = {(row, col) for row, col, _, _ in kept.tolist()}
    left = boxes[[(row, col) not in known for row, col, _, _ in boxes.tolist()]].reshape(-1, 4)
    reasons = _reasons(left, crop=crop, size=section.size, spots_per_pixel=spots_per_pixel)
    return Windows(
        boxes=np.concatenate([kept, left]),
        why=(*(KEPT for _ in splits), *reasons),
        split=(*splits, *("" for _ in reasons)),
    )


def _boxes(patches: pd.DataFrame, size: tuple[int, int]) -> NDArray[np.int64]:
    if "height" in patches:
        return patches[["row", "col", "height", "width"]].to_numpy(dtype=np.int64).reshape(-1, 4)
    places = patches[["row", "col"]].to_numpy(dtype=np.int64).reshape(-1, 2)
    return np.column_stack([places, np.broadcast_to(np.array(size, np.int64), (len(places), 2))]).reshape(-1, 4)


def _reasons(
    boxes: NDArray[np.int64],
    *,
    crop: Mapping[str, Any],
    size: tuple[int, int],
    spots_per_pixel: NDArray[np.int32] | None,
) -> list[str]:
    if spots_per_pixel is None:
        return [UNTOLD] * len(boxes)
    row, col = boxes[:, 0], boxes[:, 1]
    spots = window_sums(spots_per_pixel, row, col, size)
    occupied = window_sums(spots_per_pixel > 0, row, col, size)
    least = float(crop.get("min_coverage") or 0) * size[0] * size[1] - 1e-9
    fewest = int(crop.get("min_spots") or 0)
    last = EXCLUDED if crop.get("exclude") else PLAN
    return [
        EMPTY if n == 0 else COVERAGE if on < least else SPOTS if n < fewest else last
        for n, on in zip(spots.tolist(), occupied.tolist(), strict=True)
    ]
