"""The preview of a dataset, drawn from the dataset alone: its slides put together again from their patches' totals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Totals = Callable[[int], NDArray[np.float32]]
"""Gives the totals (H, W) of the patch in a row of the patch table."""


def pick_slides(slides: pd.DataFrame, most: int) -> list[str]:
    """Return up to `most` slide ids, in the table's order, from as many splits and platforms as there are.

    Parameters
    ----------
    slides
        Columns ``slide_id``, ``split`` and ``platform``.
    """
    turn = slides.groupby(["split", "platform"], sort=False, dropna=False).cumcount()
    picked = slides.assign(turn=turn).sort_values("turn", kind="stable").head(most).index
    return [str(slide_id) for slide_id in slides.loc[sorted(picked), "slide_id"]]


def pick_patch(patches: pd.DataFrame) -> int:
    """Return the index label of a patch that shows much: the middle one of the best covered.

    Parameters
    ----------
    patches
        One slide's rows; column ``coverage``.
    """
    good = patches.index[patches["coverage"] >= 0.95 * patches["coverage"].max()]
    return int(good[len(good) // 2])


def assemble(
    rows: NDArray[np.int64], cols: NDArray[np.int64], totals: Sequence[NDArray[np.float32]], *, shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Put patches' totals back on their slide's grid.

    Parameters
    ----------
    rows, cols
        (patches,) the top left pixels; a patch may hang over any edge.
    totals
        (H, W) float32 each; where patches overlap, they agree.
    shape
        Rows and columns of the grid.

    Returns
    -------
    shape float32, 0 where no patch or no spot is
    """
    canvas = np.zeros(shape, dtype=np.float32)
    for row, col, piece in zip(rows.tolist(), cols.tolist(), totals, strict=True):
        top, left = max(row, 0), max(col, 0)
        bottom, right = min(row + piece.shape[0], shape[0]), min(col + piece.shape[1], shape[1])
        if top < bottom and left < right:
            canvas[top:bottom, left:right] = piece[top - row : bottom - row, left - col : right - col]
    return canvas
