"""Numbers as the report writes them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

NONE = "\u2013"


def whole_number(value: Any) -> str:
    """Return a number with commas between thousands; a dash for None."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NONE
    number = float(value)
    return f"{number:,.0f}" if number.is_integer() or abs(number) >= 1000 else f"{number:,.4g}"


def percent(value: float | None, digits: int = 0) -> str:
    """Return a share in per cent; small ones keep a digit, so that something does not read as nothing."""
    if value is None or math.isnan(value):
        return NONE
    shown = 100 * value
    if 0 < shown < 0.5 or 99.5 <= shown < 100:
        digits = max(digits, 1 if 0.05 <= shown < 99.95 else 2)
    return f"{shown:.{digits}f}%"


def size(value: float) -> str:
    """Return bytes in decimal units."""
    number = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def short(value: float | None) -> str:
    """Return a number with three digits."""
    if value is None or math.isnan(value):
        return NONE
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def large(value: float | None) -> str:
    """Return a number that fits a tile: from ten million on in millions and billions."""
    if value is None:
        return NONE
    for limit, unit in ((1e9, "billion"), (1e6, "million")):
        if value >= 10 * limit or (unit == "billion" and value >= limit):
            return f"{value / limit:.3g} {unit}"
    return whole_number(value)


def raw(value: Any) -> str:
    """Return a value as a script reads it back."""
    return "" if value is None else repr(float(value)) if isinstance(value, float) else str(value)


def identifier(text: str) -> str:
    """Return a text as an anchor."""
    return "".join(char if char.isalnum() or char in "-_." else "-" for char in text)


FILTERS: dict[str, Callable[..., str]] = {
    "n": whole_number,
    "pct": percent,
    "size": size,
    "short": short,
    "large": large,
    "raw": raw,
    "anchor": identifier,
}
"""Filters of the template."""
