"""Maps as tiny inline images: one image pixel per grid pixel, few colours, transparent where there is nothing."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stpatch.errors import MissingExtraError

SHADES = 48
"""Colours of a scale: more cannot be told apart at this size, and each costs three bytes in every image."""
CATEGORIES = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#7f6bb2", "#8c564b", "#5f9e4a",
    "#7fb8d8", "#f2cf80", "#7fcfb9", "#e5bcd3", "#abd9f4", "#eaae80", "#f7f1a0", "#bfb5d8", "#c5aaa5", "#afcea4",
)  # fmt: skip
"""Okabe and Ito's colours and three more, then all of them paler; what comes after them is grey."""
OTHER = "#9a9fa8"


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image to embed.

    Attributes
    ----------
    uri
        ``data:image/png;base64,...``.
    shape
        Rows and columns of the map, which may have more pixels than the image.
    low, high
        Values of the colour scale's ends.
    """

    uri: str
    shape: tuple[int, int]
    low: float = 0.0
    high: float = 0.0


def shrunk(values: NDArray[np.floating], most: int) -> NDArray[np.float64]:
    """Return a map of at most `most` rows and columns: means over square blocks, NaN where a block has no value."""
    factor = -(-max(values.shape) // most)
    image = np.asarray(values, dtype=np.float64)
    if factor <= 1:
        return image
    rows, columns = (-(-side // factor) for side in image.shape)
    padded = np.full((rows * factor, columns * factor), np.nan)
    padded[: image.shape[0], : image.shape[1]] = image
    blocks = padded.reshape(rows, factor, columns, factor)
    known = np.isfinite(blocks)
    count = known.sum(axis=(1, 3))
    total = np.where(known, blocks, 0.0).sum(axis=(1, 3))
    means: NDArray[np.float64] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return means


def scale_image(values: NDArray[np.floating], *, cmap: str, most: int = 320, floor: float | None = None) -> Image:
    """Return a map in the colours of a matplotlib colour map.

    Parameters
    ----------
    values
        (rows, columns); NaN is transparent.
    floor
        Value of the lower end; None: the first percentile, so that a few dark pixels do not wash the rest out.
    """
    image = shrunk(values, most)
    seen = image[np.isfinite(image)]
    low, high = (float(end) for end in np.percentile(seen, [1, 99])) if seen.size else (0.0, 1.0)
    low = low if floor is None else floor
    if high <= low:
        high = float(seen.max()) if seen.size and seen.max() > low else low + 1.0
    step = np.clip((image - low) / (high - low), 0, 1) * (SHADES - 1)
    codes = np.where(np.isfinite(image), 1 + np.rint(np.nan_to_num(step)), 0).astype(np.uint8)
    return Image(uri=_png(codes, scale_colours(cmap)), shape=_shape(values), low=low, high=high)


def category_image(codes: NDArray[np.int16], colours: Sequence[str], *, most: int = 320) -> Image:
    """Return a map of categories, -1 = transparent; of a block of pixels its middle one is shown."""
    factor = -(-max(codes.shape) // most)
    image = codes[factor // 2 :: factor, factor // 2 :: factor] if factor > 1 else codes
    palette = [_rgb(colour) for colour in colours]
    return Image(uri=_png((image + 1).astype(np.uint8), palette), shape=_shape(codes))


def category_colours(numbers: NDArray[np.integer]) -> list[str]:
    """Return a colour for every category: the most frequent ones have their own, the rest are grey.

    Parameters
    ----------
    numbers
        (categories,) pixels of each, over all slides: a category has one colour on all of them.
    """
    colours = [OTHER] * len(numbers)
    for colour, code in zip(CATEGORIES, np.argsort(-numbers, kind="stable").tolist(), strict=False):
        colours[code] = colour
    return colours


def scale_colours(cmap: str) -> list[tuple[int, int, int]]:
    """Return the `SHADES` colours of a colour map."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise MissingExtraError.of("report", needs="matplotlib", purpose="a report") from error
    shades = (mpl.colormaps[cmap](np.linspace(0, 1, SHADES))[:, :3] * 255).round().astype(int)
    return [(int(r), int(g), int(b)) for r, g, b in shades]


def gradient(cmap: str, stops: int = 9) -> str:
    """Return a colour map as a CSS gradient, for the scale below an image."""
    colours = scale_colours(cmap)
    chosen = [colours[round(i * (len(colours) - 1) / (stops - 1))] for i in range(stops)]
    return f"linear-gradient(90deg,{','.join(f'#{r:02x}{g:02x}{b:02x}' for r, g, b in chosen)})"


def bar_length(width_um: float) -> float:
    """Return a round length in micrometres of a quarter to a half of a width."""
    largest = width_um * 0.45
    power = 10.0 ** np.floor(np.log10(largest))
    return float(next(step * power for step in (5, 2, 1) if step * power <= largest))


def _shape(values: NDArray[np.generic]) -> tuple[int, int]:
    return int(values.shape[0]), int(values.shape[1])


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _png(codes: NDArray[np.uint8], palette: Sequence[tuple[int, int, int]]) -> str:
    """Return a PNG of palette entries; 0 is transparent, 1 the palette's first."""
    try:
        from PIL import Image as Pillow  # comes with matplotlib
    except ImportError as error:
        raise MissingExtraError.of("report", needs="pillow", purpose="a report") from error

    image = Pillow.fromarray(np.ascontiguousarray(codes))
    image.putpalette([0, 0, 0, *(part for colour in palette for part in colour)])
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", transparency=0, optimize=False, compress_level=9)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
