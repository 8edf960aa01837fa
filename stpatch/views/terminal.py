"""Pictures in a terminal: two pixels per character, the upper one its ink and the lower one its paper."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

_HALF = "\u2580"
_RESET = "\x1b[0m"


def has_colours(environment: Mapping[str, str], *, is_terminal: bool) -> bool:
    """Whether a terminal shows 24-bit colours, as far as it tells."""
    told = environment.get("COLORTERM", "").lower() in ("truecolor", "24bit")
    return is_terminal and told and "NO_COLOR" not in environment


def blocks(pixels: NDArray[np.uint8], *, width: int) -> str:
    """Return an image as lines of half blocks.

    Parameters
    ----------
    pixels
        (rows, columns, 4) uint8 RGBA; a transparent pixel is the terminal's own background.
    width
        Characters in a line at most: a larger image loses pixels, evenly.
    """
    step = max(-(-pixels.shape[1] // max(width, 1)), 1)
    image = pixels[step // 2 :: step, step // 2 :: step]
    if len(image) % 2:
        image = np.concatenate([image, np.zeros_like(image[:1])])
    lines = []
    for upper, lower in zip(image[0::2].tolist(), image[1::2].tolist(), strict=True):
        lines.append("".join(_cell(top, bottom) for top, bottom in zip(upper, lower, strict=True)) + _RESET)
    return "\n".join(lines)


def _cell(top: list[int], bottom: list[int]) -> str:
    if not top[3] and not bottom[3]:
        return f"{_RESET} "
    if not bottom[3]:
        return f"{_RESET}\x1b[38;2;{top[0]};{top[1]};{top[2]}m{_HALF}"
    if not top[3]:
        return f"{_RESET}\x1b[38;2;{bottom[0]};{bottom[1]};{bottom[2]}m\u2584"
    return f"\x1b[38;2;{top[0]};{top[1]};{top[2]}m\x1b[48;2;{bottom[0]};{bottom[1]};{bottom[2]}m{_HALF}"
