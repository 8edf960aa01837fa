"""The preview of a dataset, drawn from the dataset alone: its slides put together again from their patches' totals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stpatch.views.describe import summary
from stpatch.views.montage import montage, spread
from stpatch.views.patch import PatchPicture
from stpatch.views.slide import SlidePicture
from stpatch.views.whole import Whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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


def preview(folder: Path, *, slides: int = 12, patches: int = 6) -> Figure:
    """Draw a dataset: slides with their patches outlined, and channels of some patches.

    Parameters
    ----------
    folder
        The dataset's folder.
    slides, patches
        How many of each at most; they are taken from all splits and platforms.

    Raises
    ------
    DatasetError
        There is no dataset, or it is damaged.
    MissingExtraError
        Matplotlib is not installed.
    """
    whole = Whole(folder)
    try:
        shown = pick_slides(_with_patches(whole), slides)
        by_slide = dict(list(whole.patches.groupby("slide_id", sort=False)))
        pictures = [slide_picture(whole, slide_id, by_slide[slide_id]) for slide_id in shown]
        one_pixel = whole.manifest.layout.shape[1:] == (1, 1)  # nothing to see in a patch of one pixel
        chosen = [] if one_pixel else [shown[i] for i in spread(len(shown), patches)]
        rows = [patch_picture(whole, str(by_slide[s].loc[pick_patch(by_slide[s]), "key"])) for s in chosen]
        title = f"{whole.manifest.dataset['name']} {whole.manifest.dataset['version']}"
        return montage(title, summary(whole), slides=pictures, patches=rows, splits=whole.splits)
    finally:
        whole.close()


def slide_picture(whole: Whole, slide_id: str, patches: pd.DataFrame) -> SlidePicture:
    """Put a slide together from its patches' totals; places without a patch stay empty.

    Parameters
    ----------
    patches
        The slide's rows of the patch table.
    """
    once = patches.drop_duplicates(["row", "col"])  # draws of one window look the same
    totals = [whole.sample(key, split=split).totals for split, key in zip(once["split"], once["key"], strict=True)]
    places = once[["row", "col"]].to_numpy(dtype=np.int64)
    sizes = np.array([piece.shape for piece in totals], dtype=np.int64)
    slide = whole.slides[whole.slides["slide_id"] == slide_id].iloc[0]
    shape = (int(slide["rows"]), int(slide["cols"]))
    many = sizes.max() == 1  # a grid of 1 x 1 outlines would hide the tissue: none
    boxes = np.zeros((0, 4), dtype=np.int64) if many else np.column_stack([places, sizes])
    return SlidePicture(
        slide_id=slide_id,
        totals=assemble(places[:, 0], places[:, 1], totals, shape=shape),
        boxes=boxes,
        splits=() if many else tuple(once["split"]),
        note=f"{len(patches)} patch{'es' if len(patches) != 1 else ''} \u00b7 {shape[0]} x {shape[1]} pixels",
    )


def patch_picture(whole: Whole, key: str) -> PatchPicture:
    """Return the picture of one patch, in normalized values."""
    row = whole.row_of(key)
    sample = whole.sample(key, split=row["split"], values="normalized")
    organisms = [str(organism) for organism in whole.genes["organism"].dropna().unique()]
    return PatchPicture(
        key=key,
        x=sample.x,
        totals=sample.totals,
        names=tuple(_without_organism(name, organisms) for name in whole.names_of(sample, split=row["split"])),
        split=row["split"],
        note=f"row {row['row']}, col {row['col']}\n{row['n_spots']} spots, {100 * row['coverage']:.0f}% covered",
    )


def _without_organism(name: str, organisms: Sequence[str]) -> str:
    """Shorten the names of a vocabulary of several organisms: a patch has but one."""
    return next((name.removeprefix(f"{one}:") for one in organisms if name.startswith(f"{one}:")), name)


def _with_patches(whole: Whole) -> pd.DataFrame:
    """Return the slides that have patches, with the split of their first one."""
    first = whole.patches.drop_duplicates("slide_id").set_index("slide_id")["split"]
    slides = whole.slides[whole.slides["slide_id"].isin(first.index)].reset_index(drop=True)
    return slides.assign(split=slides["slide_id"].map(first))
