"""A montage: slides with their patches above, channels of some patches below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stpatch.views.paint import FAINT, INK, new_figure, split_colours
from stpatch.views.patch import PatchPicture, draw_channel, draw_totals, telling_channels
from stpatch.views.slide import SlidePicture, draw_slide, key_of_splits, key_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 12.0
_MARGIN = 0.3
_SLIDE_COLUMNS = 6
_CHANNELS = 9


def montage(
    title: str, note: str, *, slides: Sequence[SlidePicture], patches: Sequence[PatchPicture], splits: Sequence[str]
) -> Figure:
    """Return slides and patches as one figure.

    Parameters
    ----------
    title, note
        The dataset's name, and a line about it.
    slides
        Drawn up to six in a row, at the scale that fits each.
    patches
        One a row: totals and the nine channels that vary most.
    splits
        All splits, in order: they fix the colours.
    """
    colours = split_colours(splits)
    n_slide_rows = -(-len(slides) // _SLIDE_COLUMNS)
    n_columns = min(_SLIDE_COLUMNS, max(3, len(slides)))
    cell = (_WIDTH - 2 * _MARGIN) / n_columns
    cell_height = min(cell, 3.0) + 0.35
    label = 1.55
    side = (_WIDTH - 2 * _MARGIN - label) / (1 + _CHANNELS)
    row_height = side + 0.12
    head = 0.85
    height = head + n_slide_rows * cell_height + 0.25 + len(patches) * row_height + _MARGIN
    figure = new_figure(_WIDTH, height)
    figure.text(_MARGIN / _WIDTH, 1 - 0.3 / height, title, fontsize=15, color=INK, va="center", weight="bold")
    figure.text(_MARGIN / _WIDTH, 1 - 0.58 / height, note, fontsize=9, color=FAINT, va="center")
    key_of_splits(figure, colours, height=1 - 0.3 / height, left=1 - (_MARGIN + key_width(colours)) / _WIDTH)
    _draw_slides(figure, slides, colours, columns=n_columns, cell=(cell, cell_height), top=height - head)
    top = height - head - n_slide_rows * cell_height - 0.25
    for i, picture in enumerate(patches):
        _draw_patch_row(figure, picture, colours, top=top - i * row_height, side=side, label=label)
    return figure


def _draw_slides(
    figure: Figure,
    slides: Sequence[SlidePicture],
    colours: dict[str, str],
    *,
    columns: int,
    cell: tuple[float, float],
    top: float,
) -> None:
    height = figure.get_figheight()
    wide, tall = cell[0] - 0.12, cell[1] - 0.45
    for i, picture in enumerate(slides):
        row, column = divmod(i, columns)
        left, bottom = _MARGIN + column * cell[0], top - (row + 1) * cell[1] + 0.05
        axes = figure.add_axes((left / _WIDTH, bottom / height, wide / _WIDTH, tall / height), anchor="NW")
        draw_slide(axes, picture, colours=colours, size=9)


def _draw_patch_row(
    figure: Figure, picture: PatchPicture, colours: dict[str, str], *, top: float, side: float, label: float
) -> None:
    height = figure.get_figheight()
    colour = colours.get(picture.split, INK)
    image = side - 0.14
    middle = top - side + 0.06 + image / 2
    figure.text(_MARGIN / _WIDTH, (middle + 0.12) / height, picture.key, fontsize=8.5, color=colour, weight="bold")
    for k, line in enumerate(picture.note.split("\n")):
        figure.text(_MARGIN / _WIDTH, (middle - 0.05 - 0.15 * k) / height, line, fontsize=7.5, color=FAINT)
    chosen = telling_channels(picture, _CHANNELS)
    for i in range(1 + len(chosen)):
        left, bottom = _MARGIN + label + i * side, top - side + 0.06
        axes = figure.add_axes((left / _WIDTH, bottom / height, image / _WIDTH, (image - 0.06) / height))
        if i == 0:
            draw_totals(axes, picture)
        else:
            draw_channel(axes, picture, int(chosen[i - 1]))


def spread(n: int, most: int) -> list[int]:
    """Return up to `most` of ``range(n)``, evenly spread, the first among them."""
    return sorted({int(k) for k in np.linspace(0, n - 1, min(n, most))}) if n else []
