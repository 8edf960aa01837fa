"""Columns of a cell-by-gene table that are no genes: ids, row numbers, totals, by their names or by their values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stpatch.slides.formats.names import listed

# Gene symbols that look alike stay genes: IDS (iduronate 2-sulfatase), ID1, the fly's run.
_NAMES = re.compile(
    r"|unnamed: ?\d+|index|level_0|x|id|rows?|cells?|barcodes?|entity_?id|fovs?|fov_\w+"
    r"|cell_?(id|name|index|number|label)s?|\w*_ids?(_\w+)?"
    r"|(slide|sample|section|region|batch|tissue|donor|patient|replicate)(_(id|name|number|index)\w*)?"
    r"|run_(id|name|number|index)\w*|(slide|sample|run|cell)id|version|n_?(counts?|features?|genes)(_\w+)?|total_?counts?|transcript_counts?"
    r"|(center|centroid|min|max)_[xyz]|area|volume",
    re.IGNORECASE,
)
FEWEST = 10
"""Rows below which values tell nothing: a gene may well be the same in nine cells."""


def id_like(names: Iterable[str], *, without: Sequence[str] = ()) -> tuple[str, ...]:
    """Return those of the columns' names that are names of ids or of facts of a cell, and of no gene."""
    return tuple(name for name in names if name not in without and _NAMES.fullmatch(name.strip()))


def counted_like_ids(counts: sparse.csr_matrix) -> NDArray[np.bool_]:
    """Return (columns,) which columns are the same number in every row, or number the rows one by one."""
    n_rows, n_columns = counts.shape
    found: NDArray[np.bool_] = np.zeros(n_columns, bool)
    if n_rows < FEWEST:
        return found
    stored = np.bincount(counts.indices, minlength=n_columns)
    for column in np.flatnonzero(stored >= n_rows - 1).tolist():
        values: NDArray[Any] = counts[:, [column]].toarray().ravel().astype(np.int64)
        steps = np.diff(values)
        found[column] = bool((steps == 0).all() or (steps == 1).all())
    return found


def genes_alone(
    counts: sparse.csr_matrix, names: NDArray[np.object_]
) -> tuple[sparse.csr_matrix, NDArray[np.object_], tuple[str, ...]]:
    """Leave out the columns that `counted_like_ids` finds; a note names them."""
    ids = counted_like_ids(counts) if counts.dtype.kind in "iu" else np.zeros(len(names), bool)
    if not ids.any() or ids.all():
        return counts, names, ()
    note = f"columns that hold one number in every row, or number the rows, are not genes: {listed(names[ids])}"
    return counts[:, np.flatnonzero(~ids)], names[~ids], (note,)


def skip_note(names: Sequence[str]) -> tuple[str, ...]:
    """Return the note on columns that were left out for their names."""
    named = [name for name in names if name]
    return (f"columns that are ids or facts of a cell by their names are not genes: {listed(named)}",) if named else ()
