"""A slide's card: its tissue as images with scales, its windows with their reasons, and the facts beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.views.paint import split_colours
from stpatch.views.report.facts import SlideFacts
from stpatch.views.report.maps import SlideMaps
from stpatch.views.report.pixels import (
    OTHER,
    Image,
    bar_length,
    category_image,
    gradient,
    scale_image,
)
from stpatch.views.report.windows import KEPT

LOST = "#c2483d"
_GROUND = "#b3bac3"
"""Of pixels below windows: light enough for lines on it, dark enough to be seen on white."""


@dataclass(frozen=True, kw_only=True)
class Outline:
    """Windows drawn in one colour: an SVG path in pixels of the grid."""

    name: str
    number: int
    colour: str
    path: str
    kept: bool


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image of a slide with what explains it.

    Attributes
    ----------
    title, unit
        What it shows, and the unit of its scale.
    gradient
        CSS gradient of the scale; "" for none.
    key
        (name, colour) of categories.
    note
        A line below it.
    outlines
        Windows over it.
    """

    title: str
    image: Image
    unit: str = ""
    low: str = ""
    high: str = ""
    gradient: str = ""
    key: tuple[tuple[str, str], ...] = ()
    note: str = ""
    outlines: tuple[Outline, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SlideCard:
    """What the report shows of a slide.

    Attributes
    ----------
    box
        x, y, width and height of the drawing in pixels of the grid: windows may hang over.
    bar_um, bar_share
        Length of the scale bar, and its share of the images' width; None where micrometres are unknown.
    windows
        (fate, number), kept ones first.
    checks
        (state, sentence) of what was looked at in the geometry; the state is ``ok`` or ``note``.
    """

    facts: SlideFacts
    box: tuple[int, int, int, int]
    pictures: tuple[Picture, ...]
    bar_um: float | None
    bar_share: float | None
    windows: tuple[tuple[str, int], ...]
    checks: tuple[tuple[str, str], ...]
    is_open: bool
    complete: bool


def slide_card(
    facts: SlideFacts,
    maps: SlideMaps,
    *,
    gene: str,
    label: str,
    categories: Sequence[tuple[str, str]],
    splits: Sequence[str],
    most: int,
    crop: Mapping[str, Any],
    is_open: bool,
) -> SlideCard:
    """Put a slide's card together.

    Parameters
    ----------
    gene, label, categories
        What the maps show, and each category's name and colour; "" and none where they do not.
    splits
        All splits in order: they fix the colours.
    most
        Rows and columns of an image at most.
    crop
        The manifest's section, for the reasons' numbers.
    """
    on = maps.totals > 0
    log_totals = np.where(on, np.log10(1 + maps.totals.astype(np.float64)), np.nan)
    totals = scale_image(log_totals, cmap="magma", most=most)
    missing = "" if maps.complete else "from the patches; spots outside of them are not in the dataset"
    pictures = [
        Picture(
            title="Total counts", image=totals, unit="counts per pixel (log)", low=_of_log(totals.low),
            high=_of_log(totals.high), gradient=gradient("magma"), note=missing,
        )
    ]  # fmt: skip
    if maps.gene is not None:
        image = scale_image(np.where(on, maps.gene.astype(np.float64), np.nan), cmap="viridis", most=most, floor=0)
        held = "" if maps.complete else "where a patch has the gene as a channel"
        pictures.append(
            Picture(
                title=gene, image=image, unit="counts per pixel", low="0", high=f"{image.high:.3g}",
                gradient=gradient("viridis"), note=held,
            )
        )  # fmt: skip
    if maps.label is not None and categories:
        pictures.append(_label_picture(maps.label, label, categories, most))
    outlines = _outlines(maps, splits)
    ground = category_image(np.where(on, 0, -1).astype(np.int16), [_GROUND], most=most)
    pictures.append(
        Picture(
            title="Pixel grid and windows", image=ground, outlines=outlines,
            key=tuple((f"{item.name} ({item.number})", item.colour) for item in outlines),
        )
    )  # fmt: skip
    box = _box(maps, facts)
    bar = None if facts.pitch_um is None else bar_length(facts.pitch_um * box[2])
    return SlideCard(
        facts=facts,
        box=box,
        pictures=tuple(pictures),
        bar_um=bar,
        bar_share=None if bar is None or facts.pitch_um is None else bar / (facts.pitch_um * box[2]),
        windows=tuple((_fate(name, crop), number) for name, number in maps.windows.tally().items()),
        checks=tuple(_checks(facts, maps)),
        is_open=is_open,
        complete=maps.complete,
    )


def _label_picture(codes: NDArray[np.int16], label: str, categories: Sequence[tuple[str, str]], most: int) -> Picture:
    colours = [colour for _, colour in categories]
    numbers = np.bincount(codes[codes >= 0].astype(np.int64), minlength=len(categories))
    order = [int(i) for i in np.argsort(-numbers, kind="stable") if numbers[i]]
    key = [categories[i] for i in order if colours[i] != OTHER]
    rest = sum(1 for i in order if colours[i] == OTHER)
    if rest:
        key.append((f"{rest} others", OTHER))
    return Picture(title=f"Label: {label}", image=category_image(codes, colours, most=most), key=tuple(key))


def _outlines(maps: SlideMaps, splits: Sequence[str]) -> tuple[Outline, ...]:
    windows = maps.windows
    if windows.boxes.size and int(windows.boxes[:, 2:].max()) == 1:
        return ()  # outlines of single pixels would hide the tissue
    colours = split_colours(list(splits))
    fates = [split if why == KEPT else why for why, split in zip(windows.why, windows.split, strict=True)]
    found = []
    for name in dict.fromkeys([*splits, *sorted(set(fates))]):
        chosen = windows.boxes[[fate == name for fate in fates]].tolist()
        if chosen:
            path = "".join(f"M{col} {row}h{width}v{height}h-{width}z" for row, col, height, width in chosen)
            kept = name in colours
            found.append(Outline(name=name, number=len(chosen), colour=colours.get(name, LOST), path=path, kept=kept))
    return tuple(found)


def _fate(name: str, crop: Mapping[str, Any]) -> str:
    told = {KEPT: "kept", "below min_coverage": f"below min_coverage ({crop.get('min_coverage')})"}
    told["below min_spots"] = f"below min_spots ({crop.get('min_spots')})"
    return told.get(name, name)


def _box(maps: SlideMaps, facts: SlideFacts) -> tuple[int, int, int, int]:
    """Return the drawing's frame: the grid, and the windows that hang over it."""
    boxes = maps.windows.boxes
    top, left = min(0, *boxes[:, 0].tolist(), 0), min(0, *boxes[:, 1].tolist(), 0)
    bottom = max(facts.rows, *(boxes[:, 0] + boxes[:, 2]).tolist(), 0)
    right = max(facts.cols, *(boxes[:, 1] + boxes[:, 3]).tolist(), 0)
    return left, top, right - left, bottom - top


def _checks(facts: SlideFacts, maps: SlideMaps) -> list[tuple[str, str]]:
    lattice = {"hex": "hexagonal lattice", "square": "square lattice", "irregular": "no lattice"}.get(maps.geometry)
    size = f"{facts.rows} x {facts.cols} pixels"
    checks = [("ok", f"{size}, {lattice}" if lattice else size)]
    if facts.pitch_um is None:
        checks.append(("note", "nothing tells the micrometres: sizes are in pixels"))
    else:
        checks.append(("ok", f"{facts.pitch_um:.4g} um per pixel"))
    if maps.geometry == "hex":
        checks.append(("note", "rows of a hexagonal lattice are drawn as square pixels: y is stretched by 15%"))
    if facts.collisions:
        what = f"{facts.lost_spots} of them were dropped" if facts.lost_spots else "their counts were summed"
        checks.append(("note", f"{facts.collisions} spots fell on a taken pixel; {what}"))
    elif facts.record:
        checks.append(("ok", "one spot per pixel"))
    if "recognized" in facts.record:
        version = f", {facts.record['version']}" if facts.record.get("version") else ""
        checks.append(("ok", f"recognized by {facts.record['recognized']}{version}"))
    return checks


def _of_log(value: float) -> str:
    return f"{max(10**value - 1, 0):,.0f}"
