"""A slide as an image: what its pixels counted, and where its patches lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stpatch.views.paint import heading, show_pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class SlidePicture:
    """What a slide's picture shows.

    Attributes
    ----------
    slide_id
        Name of the slide.
    totals
        (H, W) float32, counts over all genes per pixel; 0 = empty.
    boxes
        (patches, 4) int64: row, col, height and width in pixels of `totals`. A box may hang over the edge.
    splits
        (patches,) the patches' splits.
    note
        A line below the title.
    """

    slide_id: str
    totals: NDArray[np.float32]
    boxes: NDArray[np.int64]
    splits: tuple[str, ...]
    note: str = ""


def log_totals(totals: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return ``log10(1 + totals)`` with NaN in empty pixels."""
    values = np.asarray(totals, dtype=np.float64)
    return np.where(values > 0, np.log10(1 + np.maximum(values, 0)), np.nan)


def log_range(values: NDArray[np.float64]) -> dict[str, float]:
    """Return the colour map's ends for some log totals: a few dark or bright pixels shall not wash the rest out."""
    if not values.size:
        return {"vmin": 0.0, "vmax": 1.0}
    low, high = (float(end) for end in np.percentile(values, [1, 99]))
    return {"vmin": low - 0.25 * (high - low), "vmax": high}


def draw_slide(axes: Axes, picture: SlidePicture, *, colours: Mapping[str, str], size: float = 8) -> None:
    """Draw a slide and the outlines of its patches.

    Parameters
    ----------
    colours
        A colour for every split.
    size
        Of the title, in points.
    """
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    image = log_totals(picture.totals)
    seen = image[np.isfinite(image)]
    show_pixels(axes, image, cmap="magma", **log_range(seen))
    rows, columns = picture.totals.shape
    boxes = picture.boxes.reshape(-1, 4)
    width = float(np.clip(6 / np.sqrt(len(boxes) + 1), 0.45, 1.2))
    # lines of one colour may coincide; of two, they lie side by side
    inset = 0.18 if len(set(picture.splits)) > 1 else 0.0
    for split, colour in colours.items():
        rectangles = [
            Rectangle((col - 0.5 + inset, row - 0.5 + inset), wide - 2 * inset, high_ - 2 * inset)
            for (row, col, high_, wide), own in zip(boxes.tolist(), picture.splits, strict=True)
            if own == split
        ]
        axes.add_collection(
            PatchCollection(rectangles, facecolor="none", edgecolor=colour, linewidth=width, joinstyle="miter")
        )
    bottom = max(rows, *(boxes[:, 0] + boxes[:, 2]).tolist(), 0)
    right = max(columns, *(boxes[:, 1] + boxes[:, 3]).tolist(), 0)
    top, left = min(0, *boxes[:, 0].tolist(), 0), min(0, *boxes[:, 1].tolist(), 0)
    axes.set_xlim(left - 0.5, right - 0.5)
    axes.set_ylim(bottom - 0.5, top - 0.5)
    heading(axes, picture.slide_id, picture.note, size=size)


def key_of_splits(figure: Figure, colours: Mapping[str, str], *, height: float, left: float) -> None:
    """Write the splits' names in their colours along a line; `height` and `left` are parts of the figure."""
    for split, colour in colours.items():
        figure.text(left, height, f"\u25a1 {split}", color=colour, fontsize=8, va="center", weight="bold")
        left += key_width([split]) / figure.get_figwidth()


def key_width(splits: Iterable[str]) -> float:
    """Return the width of a key of splits in inches."""
    return sum(0.35 + 0.085 * len(split) for split in splits)
