"""Panels: maps with a title, a scale and its unit, side by side in a figure or one below the other in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stpatch.views.paint import EMPTY, FAINT, INK, bare, heading, new_figure
from stpatch.views.report.pixels import bar_length
from stpatch.views.terminal import blocks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIDE, _GAP, _HEAD, _FOOT, _TOP = 1.9, 0.22, 0.3, 0.46, 0.75
_SHADES = 256


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One map.

    Attributes
    ----------
    title
        What it shows.
    image
        (rows, columns) float64; NaN is paper. Of categories: their numbers.
    cmap, low, high, unit
        The colour map, the values of its ends and their unit; "" and 0 for categories.
    colours, names
        Of categories; () for a scale.
    boxes
        (boxes, 4) row, col, height, width to outline.
    pitch_um
        Side of a pixel, for the scale bar; None: no bar.
    """

    title: str
    image: NDArray[np.float64]
    cmap: str = ""
    low: float = 0.0
    high: float = 1.0
    unit: str = ""
    colours: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    boxes: tuple[tuple[int, int, int, int], ...] = ()
    pitch_um: float | None = None

    def pixels(self) -> NDArray[np.uint8]:
        """Return the map as (rows, columns, 4) uint8 RGBA, transparent where there is nothing."""
        seen = np.isfinite(self.image)
        if self.colours:
            from matplotlib.colors import to_rgba_array

            table = to_rgba_array(self.colours)
            codes = np.where(seen, np.nan_to_num(self.image), 0).astype(np.int64)
        else:
            import matplotlib as mpl

            table = mpl.colormaps[self.cmap](np.linspace(0, 1, _SHADES))
            span = self.high - self.low or 1.0
            codes = np.rint(np.clip(np.nan_to_num((self.image - self.low) / span), 0, 1) * (_SHADES - 1)).astype(int)
        pixels: NDArray[np.uint8] = np.rint(table[codes] * 255).astype(np.uint8)
        pixels[~seen] = 0
        return pixels

    @property
    def scale(self) -> str:
        """The scale in words: ``0 to 3.2 log1p``, or the categories."""
        if self.colours:
            return ", ".join(self.names)
        return f"{_number(self.low)} to {_number(self.high)} {self.unit}".strip() if self.unit else ""


def scale_panel(
    title: str,
    values: NDArray[np.floating],
    *,
    cmap: str = "viridis",
    unit: str,
    floor: float | None = 0.0,
    boxes: Sequence[tuple[int, int, int, int]] = (),
    pitch_um: float | None = None,
) -> Panel:
    """Return a panel whose scale begins at `floor` (None: at the first percentile) and ends at the 99th percentile."""
    image = np.asarray(values, dtype=np.float64)
    seen = image[np.isfinite(image)]
    low, high = (float(end) for end in np.percentile(seen, [1, 99])) if seen.size else (0.0, 1.0)
    low = low if floor is None else floor
    if high <= low:
        high = float(seen.max()) if seen.size and seen.max() > low else low + 1.0
    return Panel(
        title=title, image=image, cmap=cmap, low=low, high=high, unit=unit, boxes=tuple(boxes), pitch_um=pitch_um
    )


def panels_figure(title: str, note: str, panels: Sequence[Panel], *, columns: int = 5) -> Figure:
    """Return panels as a figure, `columns` to a row."""
    n_columns = max(min(columns, len(panels)), 1)
    n_rows = -(-len(panels) // n_columns)
    high, wide = np.array([panel.image.shape for panel in panels] or [(1, 1)]).max(axis=0)
    tall = float(np.clip(_SIDE * high / wide, 0.4, 4))
    width = max(n_columns * (_SIDE + _GAP) + _GAP, 4.6)
    height = _TOP + n_rows * (tall + _HEAD + _FOOT) + 0.1
    figure = new_figure(width, height)
    figure.text(_GAP / width, 1 - 0.25 / height, title, fontsize=11, color=INK, va="center", weight="bold")
    figure.text(_GAP / width, 1 - 0.48 / height, note, fontsize=8, color=FAINT, va="center")
    for i, panel in enumerate(panels):
        row, column = divmod(i, n_columns)
        left = _GAP + column * (_SIDE + _GAP)
        bottom = height - _TOP - (row + 1) * (tall + _HEAD + _FOOT) + _FOOT
        box = (left / width, bottom / height, _SIDE / width, tall / height)
        _draw(figure.add_axes(box, anchor="NW"), panel)
        foot = figure.add_axes((left / width, (bottom - 0.2) / height, _SIDE / width, 0.05 / height))
        _draw_scale(foot, panel)
    return figure


def panels_text(panels: Sequence[Panel], *, width: int) -> str:
    """Return panels for a terminal of 24-bit colours, one below the other."""
    shown = []
    for panel in panels:
        picture = blocks(panel.pixels(), width=width)
        shown.append("\n".join(line for line in (f"{panel.title}: {panel.scale}".rstrip(": "), picture) if line))
    return "\n\n".join(shown)


def _draw(axes: Axes, panel: Panel) -> None:
    from matplotlib.patches import Rectangle

    axes.imshow(panel.pixels(), interpolation="nearest", aspect="equal")
    axes.set_facecolor(EMPTY)
    bare(axes)
    for row, col, height, width in panel.boxes:
        axes.add_patch(Rectangle((col - 0.5, row - 0.5), width, height, fill=False, edgecolor=INK, linewidth=2.2))
        axes.add_patch(Rectangle((col - 0.5, row - 0.5), width, height, fill=False, edgecolor="white", linewidth=0.9))
    heading(axes, panel.title, size=8)


def _draw_scale(axes: Axes, panel: Panel) -> None:
    bare(axes)
    axes.patch.set_visible(False)
    if panel.pitch_um is not None:
        width = panel.pitch_um * panel.image.shape[1]
        length = bar_length(width)
        axes.plot([0, length / width], [2.6, 2.6], transform=axes.transAxes, color=INK, linewidth=1.6, clip_on=False)
        axes.text(
            length / width + 0.03, 2.6, f"{length:g} um", transform=axes.transAxes, fontsize=6.5, color=INK, va="center"
        )
    if panel.colours:
        place = 0.0
        for name, colour in zip(panel.names, panel.colours, strict=True):
            axes.text(place, 0.5, "\u25a0", transform=axes.transAxes, fontsize=8, color=colour, va="center")
            axes.text(place + 0.06, 0.5, name[:18], transform=axes.transAxes, fontsize=6.5, color=INK, va="center")
            place += 0.12 + 0.036 * min(len(name), 18)
            if place > 0.75:
                break
        return
    if not panel.unit:
        return
    axes.imshow(np.linspace(0, 1, 64)[None], aspect="auto", cmap=panel.cmap)
    ends = ((0, _number(panel.low), "left"), (0.5, panel.unit, "center"), (1, _number(panel.high), "right"))
    for x, text, side in ends:
        axes.text(x, -0.6, text, transform=axes.transAxes, fontsize=6.5, color=FAINT, va="top", ha=side)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
