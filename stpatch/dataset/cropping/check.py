"""Whether the slides of a dataset hold what its tables say: every listed window is cut and held against its row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpatch.dataset import content
from stpatch.errors import DatasetError


def slide_problems(
    folder: Path,
    split: str,
    rows: Mapping[str, Any],
    chosen: NDArray[np.int64],
    facts: content.Facts,
    tell: Callable[[str], None],
) -> Iterator[DatasetError]:
    """Yield where a split's windows contradict their rows.

    Parameters
    ----------
    folder, split
        The dataset and its split.
    rows
        Columns of patches.parquet, all splits.
    chosen
        The split's rows.
    facts
        What manifest and tables say of all samples.
    tell
        Called with the path of each slide that has been looked at.
    """
    from stpatch.dataset.cropping.dataset import Cropping, open_slides
    from stpatch.dataset.home import Home

    try:
        dataset = open_slides(Home(folder), split, values="counts", dtype=None, cropping=Cropping(fresh=False, pool=1))
        table = dataset.table
    except DatasetError as problem:
        yield problem
        return
    for name in ("key", "row", "col", "n_spots"):
        listed = [rows[name][row] for row in chosen]
        if table[name].to_pylist() != [value if isinstance(value, str) else int(value) for value in listed]:
            yield DatasetError(f"the windows of split {split} cannot be found by their rows", where=f"column {name}")
            return
    seen = ""
    for number, row in enumerate(chosen):
        told = {name: rows[name][row] for name in rows}
        try:
            stored = dataset.stored(number)
        except DatasetError as problem:
            yield problem
            continue
        for what in content.check_arrays(stored.arrays, told, facts):
            yield DatasetError(what, where=f"{told['shard']}, {told['key']} (row {row} of patches.parquet)")
        if told["shard"] != seen:
            seen = told["shard"]
            tell(seen)
    dataset.close()
