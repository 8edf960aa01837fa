"""A dataset and a patch in words: aligned tables for the terminal, from plain tables and arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpatch.storage import plain_number

if TYPE_CHECKING:
    import pandas as pd


def aligned(header: Sequence[str], rows: Iterable[Sequence[object]], *, indent: str = "  ", digits: int = 3) -> str:
    """Return rows as aligned columns, numbers to the right; None is blank, floats take so many digits."""
    body = [list(row) for row in rows]
    texts = [list(header), *([_cell(value, digits) for value in row] for row in body)]
    widths = [max(len(row[i]) for row in texts) for i in range(len(header))]
    right = [all(value is None or _is_number(value) for value in column) for column in zip(*body, strict=True)]
    right = right or [False] * len(header)
    lines = (
        "  ".join(
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(row, widths, right, strict=True)
        )
        for row in texts
    )
    return "\n".join(f"{indent}{line}".rstrip() for line in lines)


def split_table(patches: pd.DataFrame, splits: Sequence[str], n_bytes: dict[str, int]) -> str:
    """Return the splits: slides, samples, shards, size, coverage.

    Parameters
    ----------
    patches
        Columns ``split``, ``slide_id``, ``shard`` and ``coverage``.
    splits
        All splits, in order; one may be empty.
    n_bytes
        Size of each split's shards.
    """
    rows = []
    for split in splits:
        own = patches[patches["split"] == split]
        size = f"{n_bytes.get(split, 0) / 1e6:.2f}"
        rows.append([split, own["slide_id"].nunique(), len(own), own["shard"].nunique(), float(size), *_middle(own)])
    return aligned(["split", "slides", "patches", "shards", "MB", "coverage: median", "least"], rows)


def slide_table(slides: pd.DataFrame, patches: pd.DataFrame, *, most: int = 40) -> str:
    """Return one line per slide: platform, splits, spots, genes, patches, coverage.

    The first `most` slides are listed; a last line says how many follow.

    Parameters
    ----------
    slides
        Columns ``slide_id``, ``platform``, ``spots`` and ``genes``.
    patches
        Columns ``slide_id``, ``split`` and ``coverage``.
    """
    by_slide = dict(list(patches.groupby("slide_id", sort=False)))
    rows = []
    for slide in slides.head(most).to_dict("records"):
        own = by_slide.get(slide["slide_id"], patches.iloc[:0])
        splits = "+".join(dict.fromkeys(own["split"])) or "none"
        rows.append(
            [slide["slide_id"], slide["platform"], splits, slide["spots"], slide["genes"], len(own), *_middle(own)]
        )
    header = ["slide", "platform", "split", "spots", "genes", "patches", "coverage: median", "least"]
    more = f"\n  and {len(slides) - most} more slides" if len(slides) > most else ""
    return aligned(header, rows) + more


def gene_table(x: NDArray[Any], names: Sequence[str], occupied: NDArray[np.bool_], *, what: str, most: int = 12) -> str:
    """Return the channels with the greatest sums over a patch's occupied pixels.

    Parameters
    ----------
    x
        (C, H, W).
    names
        (C,) gene names, "" = pad.
    occupied
        (H, W).
    what
        What the values are: ``counts``, or the normalization's name.
    """
    values = x[:, occupied].astype(np.float64)
    real = np.flatnonzero([bool(name) for name in names])
    if values.shape[1] == 0:
        real = real[:0]
    order = real[np.argsort(-values[real].sum(axis=1), kind="stable")][:most]
    rows = [
        [
            names[c],
            plain_number(values[c].sum()),
            float(values[c].mean()),
            plain_number(values[c].max()),
            _share(values[c] > 0),
        ]
        for c in order
    ]
    return aligned(["gene", f"{what}: sum", "mean", "greatest", "pixels with it"], rows)


def _middle(patches: pd.DataFrame) -> list[float | None]:
    if patches.empty:
        return [None, None]
    return [float(patches["coverage"].median()), float(patches["coverage"].min())]


def _share(mask: NDArray[np.bool_]) -> str:
    return f"{100 * mask.mean():.0f}%"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number)


def _cell(value: Any, digits: int) -> str:
    if value is None:
        return ""
    if isinstance(value, float | np.floating):
        number = float(value)
        return f"{number:.{digits}g}" if abs(number) < 10**digits else f"{number:.0f}"
    return str(value)
