"""Paint: the colours and the few strokes that all pictures share.

Pictures are `matplotlib.figure.Figure` objects that no global state knows, so they can be drawn in any process.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

INK = "#22252a"
FAINT = "#767b84"
EMPTY = "#eef0f2"
"""Pixels without a spot: paper, not the colour map's zero."""

SPLITS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999933")
"""Okabe and Ito's colours, which the colour-blind tell apart."""


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches.

    Raises
    ------
    MissingExtraError
        Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError.of("plot", needs="matplotlib", purpose="drawing a picture") from error
    return Figure(figsize=(width, height), dpi=150, facecolor="white")


def png(figure: Figure) -> bytes:
    """Return a figure as PNG, without a word on what made it or when: same picture, same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", facecolor=figure.get_facecolor(), metadata={"Software": None})
    return buffer.getvalue()


def split_colours(splits: Sequence[str]) -> dict[str, str]:
    """Return a colour for every split, in the order given (repeats count once); they recur after seven."""
    return {split: SPLITS[i % len(SPLITS)] for i, split in enumerate(dict.fromkeys(splits))}


def colour_map(name: str) -> Colormap:
    """Return a colour map that leaves empty pixels (NaN) as paper."""
    import matplotlib as mpl

    return mpl.colormaps[name].with_extremes(bad=EMPTY)


def show_pixels(
    axes: Axes,
    image: NDArray[np.floating],
    *,
    cmap: str = "viridis",
    vmin: float | None = None,
    vmax: float | None = None,
) -> None:
    """Show an image pixel by pixel, y down, without an axis; NaN is paper.

    Parameters
    ----------
    image
        (H, W) float.
    vmin, vmax
        Values of the colour map's ends; by default 0 and the greatest value.
    """
    seen = image[np.isfinite(image)]
    top = float(seen.max()) if vmax is None and seen.size else vmax
    low = 0.0 if vmin is None else vmin
    if top is None or top <= low:
        top = low + 1.0
    # without the mask matplotlib would warn of NaN where every pixel is empty
    pixels = np.ma.masked_invalid(image)
    axes.imshow(pixels, cmap=colour_map(cmap), vmin=low, vmax=top, interpolation="nearest", aspect="equal")
    bare(axes)


def bare(axes: Axes) -> None:
    """Take ticks and frame away."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def heading(axes: Axes, title: str, note: str = "", *, size: float = 8, colour: str = INK) -> None:
    """Write a title above the axes' left edge, and a fainter note on the line below it."""
    lift = size * 0.45
    axes.annotate(
        title, (0, 1), xycoords="axes fraction", xytext=(0, lift + (size * 1.15 if note else 0)),
        textcoords="offset points", fontsize=size, color=colour, ha="left", va="bottom", annotation_clip=False,
    )  # fmt: skip
    if note:
        axes.annotate(
            note, (0, 1), xycoords="axes fraction", xytext=(0, lift), textcoords="offset points",
            fontsize=size * 0.8, color=FAINT, ha="left", va="bottom", annotation_clip=False,
        )  # fmt: skip
