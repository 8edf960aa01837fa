"""Weights of fresh random windows: by a column of the slides, or by the label of a window's middle pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.config import CropSection
from stpatch.dataset.cropping.pool import SlideLibrary
from stpatch.dataset.cropping.windows import allowed_windows, centre_values
from stpatch.dataset.manifest import Manifest
from stpatch.dataset.selection import SHORT
from stpatch.dataset.slide_rows import SlideRows
from stpatch.errors import ConfigError

KEYS = ("column", "label", "values", "other")


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """How often windows are drawn.

    Attributes
    ----------
    library
        The slides.
    of_slides
        (slides,) float64, by row of slides.parquet.
    label
        Name of a label map, or None.
    of_categories
        (categories + 1,) float64 weight of a window whose middle pixel has the category; the last one is that of a
        pixel without a label.
    """

    library: SlideLibrary
    of_slides: NDArray[np.float64]
    label: str | None = None
    of_categories: NDArray[np.float64] = field(default_factory=lambda: np.ones(1))

    def of_slide(self, slide: int) -> float:
        """Return the weight of a slide's tissue."""
        return float(self.of_slides[slide])

    def of_pixels(self, slide: int) -> NDArray[np.float64]:
        """Return a slide's (rows, columns) float64 weights of a window by its middle pixel."""
        if self.label is None:
            return np.ones(self.library.spots_per_pixel(slide).shape)
        plane = self.library.labels(slide, (self.label,))[self.label]
        return self.of_categories[plane]  # -1, no label, is the last entry

    def allows(self, slide: int, size: tuple[int, int], allowed: NDArray[np.bool_]) -> bool:
        """Whether some allowed window of a slide has a weight."""
        if self.of_slide(slide) <= 0:
            return False
        return self.label is None or bool(
            (centre_values(self.of_pixels(slide), size, allowed.shape)[allowed] > 0).any()
        )


def resolve_weights(
    asked: Mapping[str, Any] | None, manifest: Manifest, slides: SlideRows, library: SlideLibrary
) -> Weights | None:
    """Return the weights that were asked for.

    Parameters
    ----------
    asked
        ``column``: a column of the slides or the samplesheet, or ``label``: a label map; ``values``: a weight by value;
        ``other``: the weight of all other values and of none (1).
    manifest, slides, library
        The dataset's.

    Raises
    ------
    ConfigError
        A key, a column, a label or a value is unknown, or a weight is not a number of 0 or more.
    """
    if asked is None:
        return None
    unknown = sorted(set(asked) - set(KEYS))
    if unknown or ("column" in asked) == ("label" in asked):
        raise _refused("name a column or a label, and its values", sorted(asked), ", ".join(KEYS))
    values, other = dict(asked.get("values", {})), asked.get("other", 1.0)
    for value, weight in [*values.items(), ("other", other)]:
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < np.inf:
            raise _refused(f"the weight of {value!r} is not one", weight, "a number of 0 or more")
    if "column" in asked:
        column = SHORT.get(asked["column"], asked["column"])
        table = slides.table
        if column not in table.column_names:
            raise _refused("there is no such column", column, ", ".join(table.column_names))
        found = table[column].to_pylist()
        _check_known(values, set(found))
        of_slides = np.array([float(values.get(value, other)) for value in found])
        return Weights(library=library, of_slides=of_slides)
    label = asked["label"]
    if label not in manifest.labels:
        raise _refused("there is no such label", label, ", ".join(manifest.labels) or "a dataset with labels")
    categories = manifest.labels[label]
    _check_known(values, set(categories))
    of_categories = np.array([*(float(values.get(name, other)) for name in categories), float(other)])
    return Weights(library=library, of_slides=np.ones(len(slides.ids)), label=label, of_categories=of_categories)


def quotas_of(
    library: SlideLibrary, section: CropSection, *, samples: int | None, weights: Weights | None
) -> dict[int, int]:
    """Return how many windows each slide gives in an epoch.

    In all ``density`` times the occupied pixels by the pixels of a window, or `samples`; each slide's share is
    proportional to its occupied pixels times its weight. A slide in which no window passes the filters gives none.
    """
    sizes: dict[int, float] = {}
    area = section.size[0] * section.size[1]
    whole = 0.0
    for slide in library.slides:
        spots = library.spots_per_pixel(slide)
        allowed = allowed_windows(spots, section)
        occupied = float(np.count_nonzero(spots))
        there = bool(allowed.any())
        if weights is not None and there:
            there = weights.allows(slide, section.size, allowed)
        sizes[slide] = occupied * (1.0 if weights is None else weights.of_slide(slide)) if there else 0.0
        whole += np.ceil(section.density * occupied / area) if sizes[slide] > 0 else 0.0
    total = int(whole) if samples is None else samples
    shares = np.array(list(sizes.values()))
    if not shares.sum() > 0:
        return {}
    exact = total * shares / shares.sum()
    counts = np.floor(exact).astype(np.int64)
    rest = np.argsort(-(exact - counts), kind="stable")
    counts[rest[: total - int(counts.sum())]] += 1
    return {slide: int(count) for slide, count in zip(sizes, counts, strict=True) if count}


def _check_known(values: Mapping[Any, Any], known: set[Any]) -> None:
    strange = [value for value in values if value not in known]
    if strange:
        shown = sorted(map(str, known))
        raise _refused("there is no such value", strange[0], ", ".join(shown[:12]) + (", ..." if shown[12:] else ""))


def _refused(what: str, found: object, expected: object) -> ConfigError:
    return ConfigError(f"weights: {what}", where="stpatch.open, weights", found=found, expected=expected)
