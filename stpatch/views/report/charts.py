"""Charts as inline SVG: their text and lines take the page's colours, so that they suit light, dark and paper."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import MissingExtraError
from stpatch.views.paint import FAINT, INK, split_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE = (4.3, 2.5)
_GRID = "#d7dade"
_VARIABLES = {INK: "var(--ink)", FAINT: "var(--faint)", _GRID: "var(--line)"}
"""Colours that the page decides."""


def histogram(
    groups: Mapping[str, NDArray[Any]], *, label: str, what: str, log: bool = False, bins: int = 30
) -> str | None:
    """Return how values are distributed in some groups, as outlines over one another.

    Parameters
    ----------
    groups
        Values by group.
    label
        Of the x axis, with its unit.
    what
        What is counted.
    log
        Whether x is logarithmic.
    """
    finite = {name: np.asarray(values, dtype=np.float64) for name, values in groups.items()}
    finite = {name: values[np.isfinite(values) & ((values > 0) | (not log))] for name, values in finite.items()}
    together = np.concatenate([*finite.values(), np.empty(0)])
    if not together.size:
        return None
    edges = _edges(together, log=log, bins=bins)
    figure, axes = _axes()
    colours = split_colours(list(finite))
    for name, values in finite.items():
        if values.size:
            numbers, _ = np.histogram(values, edges)
            axes.stairs(numbers, edges, fill=True, color=colours[name], alpha=0.22)
            axes.stairs(numbers, edges, color=colours[name], linewidth=1.4, label=name)
    if log:
        _log_ticks(axes)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(_whole_ticks())
    _words(axes, label, what)
    _key(axes, len(finite))
    return _svg(figure, title=f"{what} by {label}")


def curves(
    lines: Mapping[str, tuple[NDArray[Any], NDArray[Any]]], *, label: str, what: str, log: bool = False
) -> str | None:
    """Return curves of y over x by name."""
    if not lines:
        return None
    figure, axes = _axes()
    colours = split_colours(list(lines))
    for name, (x, y) in lines.items():
        axes.plot(x, y, color=colours[name], linewidth=1.4, label=name)
    if log:
        _log_ticks(axes)
    axes.set_ylim(bottom=0)
    _words(axes, label, what)
    _key(axes, len(lines))
    return _svg(figure, title=f"{what} over {label}")


def points(
    groups: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, label: str, what: str, log: bool = False
) -> str | None:
    """Return points by group, x on a logarithmic scale if asked."""
    if not any(len(x) for x, _ in groups.values()):
        return None
    figure, axes = _axes()
    colours = split_colours(list(groups))
    for name, (x, y) in groups.items():
        axes.scatter(x, y, s=10, color=colours[name], alpha=0.65, linewidths=0, label=name)
    if log:
        _log_ticks(axes)
    _words(axes, label, what)
    _key(axes, len(groups))
    return _svg(figure, title=f"{what} over {label}")


def saturation(gene_sums: NDArray[np.float64], *, points: int = 40) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how many genes are seen when only a share of the counts is: (shares), (genes expected).

    Of a gene of n counts, each kept with probability p, something is seen with probability ``1 - (1 - p)**n``.
    """
    counts = gene_sums[gene_sums > 0]
    shares = np.geomspace(1e-4, 1, points)
    seen = [float((-np.expm1(counts * np.log1p(-min(share, 1 - 1e-12)))).sum()) for share in shares]
    return shares, np.array(seen)


def _edges(values: NDArray[np.float64], *, log: bool, bins: int) -> NDArray[np.float64]:
    """Return the edges of bins; whole numbers lie in the middle of theirs."""
    low, high = float(values.min()), float(values.max())
    if log:
        return np.geomspace(low, high if high > low else low * 1.5, bins + 1)
    if (values == np.rint(values)).all():
        step = max(1.0, np.ceil((high - low + 1) / bins))
        number = max(int(np.ceil((high - low + 1) / step)), 6)
        first = max(low - (number * step - (high - low + 1)) // 2, 0.0) if number * step > high - low + 1 else low
        return np.asarray(first - 0.5 + step * np.arange(number + 1))
    return np.linspace(low, high if high > low else low + 1, bins + 1)


def _log_ticks(axes: Axes) -> None:
    """Make x logarithmic, with numbers as people write them; within a decade the ticks are those of a linear axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    low, high = axes.dataLim.intervalx
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _place: _plain(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if high / max(low, 1e-300) < 30:
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(LogLocator(numticks=6))


def _plain(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:g}"


def _whole_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(5, integer=True)


def _axes() -> tuple[Figure, Axes]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError.of("report", needs="matplotlib", purpose="a report") from error
    figure = Figure(figsize=_SIZE)
    axes = figure.add_axes((0.14, 0.2, 0.83, 0.7))
    axes.patch.set_visible(False)
    figure.patch.set_visible(False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.grid(axis="y", color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=FAINT, labelcolor=INK, labelsize=8, length=3, which="both")
    return figure, axes


def _words(axes: Axes, label: str, what: str) -> None:
    axes.set_xlabel(label, fontsize=8.5, color=INK)
    axes.set_title(what, fontsize=8.5, color=INK, loc="left", pad=7)


def _key(axes: Axes, n: int) -> None:
    if 1 < n <= 8:
        axes.legend(fontsize=7.5, frameon=False, labelcolor=INK, loc="best", handlelength=1.2)


def _svg(figure: Figure, *, title: str) -> str:
    """Return a figure as an ``<svg>`` element without a size, a date or a font of its own."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    FigureCanvasSVG(figure)
    buffer = io.StringIO()
    # names inside of the drawing depend on the salt: two charts of a page must not share them
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    head = re.search(r'viewBox="[^"]*"', text)
    box = head.group() if head else ""
    text = re.sub(r"<svg[^>]*>", f'<svg {box} role="img" aria-label="{_escaped(title)}">', text, count=1)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px var(--font)", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", text)  # newer versions write it apart
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # nothing refers to them, and charts share them
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    return re.sub(r"\n\s*", "\n", text)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
