"""What the peers' scripts share: a folder's slides, their windows, and a clock. Runs in the peers' environments."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

SIDE, GENES = 16, 512


def slide_paths(folder: str) -> list[Path]:
    """Return the slides of a folder's samplesheet."""
    sheet = Path(folder) / "slides.csv"
    return [sheet.parent / line.split(",")[1] for line in sheet.read_text().splitlines()[1:]]


def pixels_of(obs: Any) -> tuple[Any, Any]:
    """Return (spots,) row and column in the slide's image; every row of a hexagonal array skips every other column."""
    row, column = obs["array_row"].to_numpy(), obs["array_col"].to_numpy()
    hexagonal = bool((column[row % 2 == 0] % 2 == 0).all() and (column[row % 2 == 1] % 2 == 1).all())
    return row, column // 2 if hexagonal else column


def top_genes(counts: Any) -> Any:
    """Return the positions of the genes with most counts, ascending."""
    return np.sort(np.argsort(np.asarray(counts.sum(axis=0)).ravel())[-GENES:])


def whole_windows(row: Any, column: Any) -> list[Any]:
    """Return the spots of each tile that is full, in the order of the tile's pixels."""
    tile = row // SIDE * (column.max() // SIDE + 1) + column // SIDE
    order = np.lexsort((column, row, tile))
    numbers, starts, sizes = np.unique(tile[order], return_index=True, return_counts=True)
    return [order[starts[i] : starts[i] + sizes[i]] for i in range(len(numbers)) if sizes[i] == SIDE * SIDE]


def report(samples: Iterable[Any], what: str, *, seconds: float = float("inf"), **more: Any) -> None:
    """Go through samples for some seconds at most, and print the number and the time."""
    made, begun = 0, time.perf_counter()
    for _ in samples:
        made += 1
        if time.perf_counter() - begun > seconds:
            break
    print(json.dumps({"what": what, "samples": made, "seconds": time.perf_counter() - begun, **more}), flush=True)


def again(epoch: Callable[[], Iterable[Any]]) -> Iterator[Any]:
    """Yield an epoch's samples again and again."""
    while True:
        yield from epoch()
