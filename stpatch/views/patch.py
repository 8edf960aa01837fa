"""A patch as images: its totals and some of its channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stpatch.views.paint import INK, heading, show_pixels
from stpatch.views.slide import log_range, log_totals

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True)
class PatchPicture:
    """What a patch's picture shows.

    Attributes
    ----------
    key
        The sample's key.
    x
        (C, H, W) normalized values.
    totals
        (H, W) float32; 0 = empty.
    names
        (C,) gene names, "" = pad.
    split
        The patch's split, "" where it does not matter.
    note
        Lines below the title.
    """

    key: str
    x: NDArray[np.floating]
    totals: NDArray[np.float32]
    names: tuple[str, ...]
    split: str = ""
    note: str = ""


def telling_channels(picture: PatchPicture, n: int) -> NDArray[np.int64]:
    """Return the `n` channels that vary most over the occupied pixels, most first; pads and flat ones are left out."""
    occupied = picture.x[:, picture.totals > 0].astype(np.float64)
    if occupied.shape[1] == 0:
        return np.zeros(0, dtype=np.int64)
    variance = occupied.var(axis=1)
    real = np.array([bool(name) for name in picture.names], dtype=bool)
    order = np.argsort(-np.where(real, variance, -1.0), kind="stable")
    n_real = int((real & (variance > 0)).sum()) or int(real.sum())
    return order[: min(n, n_real)].astype(np.int64)


def draw_totals(axes: Axes, picture: PatchPicture, *, size: float = 7, colour: str = INK) -> None:
    """Draw a patch's totals on a logarithmic scale."""
    image = log_totals(picture.totals)
    seen = image[np.isfinite(image)]
    show_pixels(axes, image, cmap="magma", **log_range(seen))
    heading(axes, "total counts", size=size, colour=colour)


def draw_channel(axes: Axes, picture: PatchPicture, channel: int, *, size: float = 7) -> None:
    """Draw one channel, empty pixels as paper."""
    image = np.where(picture.totals > 0, picture.x[channel].astype(np.float64), np.nan)
    show_pixels(axes, image)
    heading(axes, picture.names[channel], size=size)
